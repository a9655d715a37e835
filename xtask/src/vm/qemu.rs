//! One boot of one machine: TCG, an empty disk, no network; kernel log and output on two serial
//! ports.

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{fetch::Cache, outcome};
use crate::command::{on_path, read};

const PROGRAM: &str = "qemu-system-x86_64";
/// Older ones emulate CMPXCHG16B wrongly: some kernels die at random.
pub(super) const GOOD_MAJOR: u32 = 10;
const LIMIT_CHECK: Duration = Duration::from_millis(250);
/// The disk: a file with nothing in it. Every kernel of ours has NVMe built in, and no other disk.
const DISK_BYTES: u64 = 256 << 20;

/// The emulator and the options that depend on its version.
pub(super) struct Qemu {
    program: PathBuf,
    /// Where a private copy has its firmware and modules.
    private: Option<PathBuf>,
    cpu: &'static str,
    /// For people.
    pub(super) description: String,
}

/// What to boot.
pub(super) struct Boot<'a> {
    pub(super) name: &'a str,
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a [u8],
    pub(super) memory: &'a str,
    /// More of the kernel's command line.
    pub(super) parameters: &'a str,
    pub(super) timeout: Duration,
    /// Show the output as it comes.
    pub(super) verbose: bool,
}

/// What came of a boot.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) end: End,
    pub(super) output: String,
    pub(super) kernel_log: String,
    /// What QEMU itself complained about.
    pub(super) complaints: String,
}

/// How the emulator ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    /// By a signal that was not ours.
    Killed,
    /// We ended it: time was up.
    TimedOut,
    /// We ended it: its kernel was beyond help.
    Stopped,
}

impl Qemu {
    /// Takes the one named in QEMU, or else the one in the cache, or else the one on PATH.
    pub(super) fn find(cache: &Cache) -> Result<Self> {
        let named = env::var_os("QEMU").map(PathBuf::from);
        let private = if named.is_some() { None } else { cache.qemu() };
        let program = match (&named, &private) {
            (Some(program), _) => program.clone(),
            (None, Some(folder)) => self::program(folder),
            (None, None) => on_path(PROGRAM)
                .into_iter()
                .next()
                .with_context(|| format!("{PROGRAM} is not installed"))?,
        };
        let major = major(&program)?;
        let old = major < GOOD_MAJOR;
        let cpu = if old { "max,cx16=off" } else { "max" };
        let advice =
            if old { " (CMPXCHG16B switched off; QEMU 10 is better: --fetch-qemu)" } else { "" };
        let description = format!("QEMU {major}, {}{advice}", program.display());
        Ok(Self { program, private, cpu, description })
    }

    /// Boots a machine and waits for its end.
    pub(super) fn boot(&self, boot: &Boot<'_>) -> Result<Run> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let (log, errors) = (folder.path().join("kernel.log"), folder.path().join("qemu.log"));
        let initrd = folder.path().join("initrd");
        fs::write(&initrd, boot.initrd).context("cannot write the initrd")?;
        let disk = folder.path().join("disk");
        File::create(&disk)
            .and_then(|file| file.set_len(DISK_BYTES))
            .context("cannot make the disk")?;
        let mut child = self
            .command(boot, &initrd, &disk, &log)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).context("cannot write QEMU's log")?)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let stdout = child.stdout.take().context("QEMU has no output")?;
        let (end, output) = thread::scope(|scope| {
            let reader = scope.spawn(|| collect(stdout, boot));
            let end = watch(&mut child, boot.timeout, &log);
            (end, reader.join().expect("the reader does not panic"))
        });
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Ok(Run { end: end?, output, kernel_log: text(&log), complaints: text(&errors) })
    }

    fn command(&self, boot: &Boot<'_>, initrd: &Path, disk: &Path, log: &Path) -> Command {
        let mut qemu = Command::new(&self.program);
        if let Some(private) = &self.private {
            qemu.env("QEMU_MODULE_DIR", private.join("usr/lib/x86_64-linux-gnu/qemu"));
            for data in ["usr/share/qemu", "usr/share/seabios"] {
                qemu.arg("-L").arg(private.join(data));
            }
        }
        qemu.args(["-M", "pc", "-accel", "tcg,thread=single", "-smp", "2"])
            .args(["-cpu", self.cpu, "-m", boot.memory])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"])
            .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .arg("-serial")
            .arg(format!("file:{}", log.display()))
            .args(["-serial", "stdio", "-kernel"])
            .arg(boot.kernel)
            .arg("-initrd")
            .arg(initrd)
            .arg("-drive")
            .arg(format!("if=none,id=disk,format=raw,cache=unsafe,file={}", disk.display()))
            .args(["-device", "nvme,drive=disk,serial=memtrace"])
            .args(["-append", &command_line(boot.parameters)]);
        // SAFETY: prctl is async-signal-safe and touches no memory here
        unsafe {
            qemu.pre_exec(|| {
                // an xtask that is ended must not leave machines behind
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        qemu
    }
}

/// Returns the emulator's path in a folder that its packages were unpacked in.
pub(super) fn program(folder: &Path) -> PathBuf {
    folder.join("usr/bin").join(PROGRAM)
}

/// Returns the version of the emulator on PATH.
pub(super) fn installed_major() -> Option<u32> {
    major(on_path(PROGRAM).first()?).ok()
}

/// Asks an emulator for its major version.
pub(super) fn major(program: &Path) -> Result<u32> {
    let text = read(Command::new(program).arg("--version"))?;
    text.split(" version ")
        .nth(1)
        .and_then(|version| version.split('.').next()?.parse().ok())
        .with_context(|| format!("cannot tell the version of {}", program.display()))
}

fn command_line(parameters: &str) -> String {
    let mut line = "console=ttyS0 loglevel=6 oops=panic panic=-1 lsm=landlock,yama,bpf".to_owned();
    // on a loaded host the guest measures its own clock wrongly: it once ran 2.5 times fast
    if let Some(khz) = tsc_khz() {
        line += &format!(" tsc_early_khz={khz}");
    }
    if !parameters.is_empty() {
        line += &format!(" {parameters}");
    }
    line
}

/// Reads this machine's clock rate from its kernel log, where that can be read.
fn tsc_khz() -> Option<u64> {
    let log = read(&mut Command::new("dmesg")).ok()?;
    let (_, rest) = log.split_once("tsc: Detected ")?;
    let (megahertz, thousandths) = rest.split_once(" MHz")?.0.split_once('.')?;
    format!("{megahertz}{thousandths}").parse().ok()
}

fn collect(stdout: ChildStdout, boot: &Boot<'_>) -> String {
    let mut reader = BufReader::new(stdout);
    let mut all = Vec::new();
    loop {
        let start = all.len();
        match reader.read_until(b'\n', &mut all) {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&all).into_owned(),
            Ok(_) if boot.verbose => {
                let line = String::from_utf8_lossy(&all[start..]);
                println!("{} | {}", boot.name, line.trim_end());
            }
            Ok(_) => {}
        }
    }
}

fn watch(child: &mut Child, timeout: Duration, log: &Path) -> Result<End> {
    let started = Instant::now();
    let mut seen = 0;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for QEMU")? {
            return Ok(status.code().map_or(End::Killed, End::Exited));
        }
        let end = if started.elapsed() > timeout {
            Some(End::TimedOut)
        } else if has_new_fatal_line(log, &mut seen) {
            // what else it has to say of its end
            thread::sleep(Duration::from_secs(1));
            Some(End::Stopped)
        } else {
            None
        };
        if let Some(end) = end {
            child.kill().context("cannot end QEMU")?;
            child.wait().context("cannot wait for QEMU")?;
            return Ok(end);
        }
        thread::sleep(LIMIT_CHECK);
    }
}

fn has_new_fatal_line(log: &Path, seen: &mut u64) -> bool {
    let mut new = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(*seen))?;
        file.read_to_end(&mut new)
    });
    let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    *seen += whole as u64;
    read.is_ok() && outcome::fatal_line(&String::from_utf8_lossy(&new[..whole])).is_some()
}
