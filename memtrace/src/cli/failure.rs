//! Errors as users see them: a sentence, a hint, an exit code.

use std::{
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
};

use caps::{CapSet, Capability};

use super::{attach::NoProcess, line::note};
use crate::{
    probe::{attach::NoStacks, btf::KernelBtf, load::Refused, look::Gone, plan::Unsupported},
    sink::printable,
};

/// Why a command ends without a result.
#[derive(Debug)]
pub(super) struct Failure {
    /// What happened, with its causes.
    error: anyhow::Error,
    /// What the user can do.
    hint: Option<String>,
    /// Exit code.
    code: u8,
}

impl Failure {
    /// It could not be done.
    pub(super) const FAILED: u8 = 1;
    /// It was asked wrongly.
    pub(super) const USAGE: u8 = 2;
    /// A command could not be executed.
    pub(super) const NOT_EXECUTABLE: u8 = 126;
    /// A command was not found.
    pub(super) const NOT_FOUND: u8 = 127;

    /// Returns a failure with its hint.
    pub(super) fn new(code: u8, error: anyhow::Error, hint: impl Into<String>) -> Self {
        Self { error, hint: Some(hint.into()), code }
    }

    /// Returns a failure of what was asked.
    pub(super) fn usage(error: String, hint: impl Into<String>) -> Self {
        Self::new(Self::USAGE, anyhow::Error::msg(error), hint)
    }

    /// Returns that what was asked about is not there any more.
    pub(super) fn gone(what: String, hint: impl Into<String>) -> Self {
        Self::new(Self::FAILED, Vanished(what).into(), hint)
    }

    /// A file could not be read; `hint` says how there would be one.
    pub(super) fn unread(path: &Path, error: &io::Error, hint: &'static str) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "read it as a user who may",
            _ => hint,
        };
        Self::new(Self::FAILED, anyhow::anyhow!("cannot read {}: {error}", path.display()), hint)
    }

    /// A file could not be written.
    pub(super) fn unwritten(path: &Path, error: &io::Error) -> Self {
        Self::new(
            Self::FAILED,
            anyhow::anyhow!("cannot write to {}: {error}", path.display()),
            "name a file in a folder that exists and that you may write to",
        )
    }

    /// Returns the sentence.
    pub(super) fn sentence(&self) -> String {
        format!("{:#}", self.error)
    }

    /// Tells whether it is only that a process is not there any more.
    pub(super) fn is_gone(&self) -> bool {
        self.error.is::<NoProcess>() || self.error.is::<Vanished>()
    }

    /// Prints it to stderr and returns the exit code.
    pub(super) fn print(self) -> ExitCode {
        let Self { error, hint, code } = self;
        eprintln!("memtrace: {}", printable(&format!("{error:#}")));
        if let Some(hint) = hint {
            note(&format!("hint: {}", printable(&hint)));
        }
        ExitCode::from(code)
    }
}

/// What was asked about ended meanwhile.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Vanished(String);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let hint = hint(&error);
        Self { error, hint, code: Self::FAILED }
    }
}

/// Returns what a user can do about an error that may come from anywhere.
fn hint(error: &anyhow::Error) -> Option<String> {
    if error.is::<Gone>() {
        return Some("it exited, or is a zombie that its parent has not waited for".to_owned());
    }
    if error.is::<Unsupported>() {
        let hint = "counting needs Linux 6.1 or later, `--evidence args` 5.10; `memtrace doctor` says what is missing";
        return Some(hint.to_owned());
    }
    if let Some(none) = error.downcast_ref::<NoStacks>() {
        let hint = match none {
            NoStacks::Reclaimed => "it needs Linux 6.1 or later, and --evidence rss or frames",
            NoStacks::Faults => "leave faults out",
        };
        return Some(hint.to_owned());
    }
    if error.chain().any(|cause| cause.is::<Refused>()) {
        let hint = "this is a fault of memtrace: please report it, with the output of `-vv`";
        return Some(hint.to_owned());
    }
    let denied = error.chain().any(|cause| {
        let text = cause.to_string();
        text.contains("os error 1)") || text.contains("os error 13)") || text.contains("EPERM")
    });
    if denied {
        return Some(privileges().to_owned());
    }
    if !std::path::Path::new(KernelBtf::PATH).exists() {
        return Some(no_btf().to_owned());
    }
    None
}

/// Checks that the probes can be loaded at all.
pub(super) fn check_privileges() -> Result<(), Failure> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(Failure::new(
            Failure::FAILED,
            anyhow::anyhow!("the probes know x86-64 only, not {}", std::env::consts::ARCH),
            "`memtrace maps PID` works here",
        ));
    }
    if !may_load_probes() {
        return Err(Failure::new(
            Failure::FAILED,
            anyhow::anyhow!("tracing needs root, or CAP_BPF and CAP_PERFMON"),
            privileges(),
        ));
    }
    if !std::path::Path::new(KernelBtf::PATH).exists() {
        let error = anyhow::anyhow!("this kernel does not publish its types ({})", KernelBtf::PATH);
        return Err(Failure::new(Failure::FAILED, error, no_btf()));
    }
    Ok(())
}

/// Checks that an executable is one whose system calls the probes know. What cannot be read is left
/// to whoever starts it.
pub(super) fn check_executable(path: &std::path::Path) -> Result<(), Failure> {
    if is_32_bit(path) {
        return Err(Failure::new(
            Failure::FAILED,
            anyhow::anyhow!("{} is a 32-bit program", path.display()),
            "memtrace traces 64-bit programs only; `memtrace maps PID` works for it",
        ));
    }
    Ok(())
}

/// Tells whether an executable is a 32-bit one. What cannot be read is not.
pub(super) fn is_32_bit(path: &std::path::Path) -> bool {
    let mut head = [0; 5];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    // `EI_CLASS` of an ELF file: 1 is 32 bits (elf(5)).
    read.is_ok() && head == *b"\x7fELF\x01"
}

const fn privileges() -> &'static str {
    "run it with sudo; `sudo memtrace run --user $USER -- CMD` runs the command as yourself"
}

const fn no_btf() -> &'static str {
    "the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, as those of all large distributions are, \
     and /sys must be mounted"
}

/// What is not known is left to the kernel to refuse.
fn may_load_probes() -> bool {
    use Capability::{CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN};
    caps::read(None, CapSet::Effective).map_or(true, |has| {
        has.contains(&CAP_SYS_ADMIN) || has.contains(&CAP_BPF) && has.contains(&CAP_PERFMON)
    })
}
