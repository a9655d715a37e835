//! An apt of our own: its lists, sources and downloads are private, and only the mirror's address
//! is taken from this machine's apt. It installs nothing and takes no lock of the system's.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::command::read;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const VARIABLE: &str = "MEMTRACE_DEBIAN_MIRROR";
const SUITES: [&str; 5] =
    ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports"];
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
/// Lists older than this are fetched anew.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// A private apt in a folder.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Sets apt up in a folder and brings its lists up to date.
    pub(super) fn open(folder: PathBuf) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial", "state"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let apt = Self { folder };
        let sources = sources()?;
        let changed = fs::read_to_string(apt.sources_file()).ok() != Some(sources.clone());
        write(&apt.sources_file(), &sources)?;
        write(&apt.folder.join("apt.conf"), &apt.configuration()?)?;
        if changed || !apt.is_fresh() {
            apt.update()?;
        }
        Ok(apt)
    }

    /// Fetches the package lists.
    ///
    /// A suite that has gone (archived, superseded) is named and does not fail the others.
    pub(super) fn update(&self) -> Result<()> {
        println!("vm: fetching Debian's package lists");
        let mut problem = String::new();
        for wait in [0, 5, 20] {
            thread::sleep(Duration::from_secs(wait));
            match self.run("apt-get", &["-qq", "update"]) {
                Ok(_) => return write(&self.stamp(), ""),
                Err(error) => problem = format!("{error:#}"),
            }
        }
        println!("vm: WARNING: not every package list could be fetched: {problem}");
        if !self.has_lists() {
            bail!("apt-get update gave no package list at all");
        }
        write(&self.stamp(), "")
    }

    /// Runs apt-cache and returns what it prints.
    pub(super) fn cache(&self, args: &[&str]) -> Result<String> {
        self.run("apt-cache", args)
    }

    /// Downloads a package, as `name` or `name=version`, and unpacks it below a folder.
    pub(super) fn unpack(&self, package: &str, folder: &Path) -> Result<()> {
        let downloads = tempfile::tempdir_in(&self.folder).context("cannot make a folder")?;
        read(self.command("apt-get", &["-qq", "download", package]).current_dir(&downloads))
            .with_context(|| format!("cannot download {package}"))?;
        for file in fs::read_dir(&downloads).context("cannot list the downloads")? {
            let file = file.context("cannot list the downloads")?.path();
            read(Command::new("dpkg").arg("-x").args([&file, folder]))?;
        }
        Ok(())
    }

    fn run(&self, tool: &str, args: &[&str]) -> Result<String> {
        read(&mut self.command(tool, args))
    }

    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = Command::new(tool);
        command.args(args).env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn configuration(&self) -> Result<String> {
        let folder = self.folder.to_str().context("the cache's path is not UTF-8")?;
        let machine = read(Command::new("apt-config").arg("dump"))?;
        // how to reach the mirror (proxies, clocks that are off) is this machine's to say
        let network = machine.lines().filter(|line| {
            ["Acquire::http", "Acquire::Check-"].iter().any(|prefix| line.starts_with(prefix))
        });
        let own = [
            "Dir::Etc::main \"/dev/null\";".to_owned(),
            "Dir::Etc::parts \"/dev/null\";".to_owned(),
            "Dir::Etc::sourceparts \"/dev/null\";".to_owned(),
            "Dir::Etc::preferences \"/dev/null\";".to_owned(),
            "Dir::Etc::preferencesparts \"/dev/null\";".to_owned(),
            "Dir::State::status \"/dev/null\";".to_owned(),
            format!("Dir::Etc::sourcelist \"{}\";", self.sources_file().display()),
            format!("Dir::State \"{folder}/state\";"),
            format!("Dir::State::Lists \"{folder}/lists\";"),
            format!("Dir::Cache \"{folder}/cache\";"),
            "APT::Architecture \"amd64\";".to_owned(),
            "APT::Architectures { \"amd64\"; };".to_owned(),
            "APT::Sandbox::User \"root\";".to_owned(),
            "Acquire::Languages \"none\";".to_owned(),
            "Acquire::Retries \"3\";".to_owned(),
            "Acquire::GzipIndexes \"true\";".to_owned(),
        ];
        let lines: Vec<_> = network.map(str::to_owned).chain(own).collect();
        Ok(lines.join("\n") + "\n")
    }

    fn sources_file(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("updated")
    }

    fn is_fresh(&self) -> bool {
        let age = fs::metadata(self.stamp())
            .and_then(|file| file.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        age.is_some_and(|age| age < FRESH)
    }

    fn has_lists(&self) -> bool {
        self.folder.join("lists").read_dir().is_ok_and(|files| {
            files.flatten().any(|file| file.file_name().to_string_lossy().contains("_Packages"))
        })
    }
}

fn sources() -> Result<String> {
    if !Path::new(KEYRING).is_file() {
        bail!("{KEYRING} is missing: install debian-archive-keyring");
    }
    let mirror = match env::var(VARIABLE) {
        Ok(mirror) => format!("{}/", mirror.trim_end_matches('/')),
        Err(_) => {
            let args = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
            let addresses = read(Command::new("apt-get").args(args))?;
            addresses
                .lines()
                .find(|address| address.ends_with("/debian/"))
                .map(str::to_owned)
                .with_context(|| {
                    format!(
                        "this machine's apt knows no Debian mirror: run `apt-get update`, or name \
                         one in {VARIABLE} (its security updates are expected beside it)"
                    )
                })?
        }
    };
    let security = format!("{}-security", mirror.trim_end_matches('/'));
    let line = |address: &str, suite| {
        format!("deb [signed-by={KEYRING} arch=amd64] {address} {suite} main\n")
    };
    let plain = SUITES.iter().map(|suite| line(&mirror, suite));
    Ok(plain.chain(SECURITY_SUITES.iter().map(|suite| line(&security, suite))).collect())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
