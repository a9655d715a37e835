//! How the running kernel was built and started, as far as it says so.

use std::{
    fs::{self, File},
    io::{self, Read as _},
};

use flate2::read::GzDecoder;
use nix::sys::utsname::uname;

/// A setting of the kernel that is on or off.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// On the command line.
    parameter: &'static str,
    /// In the kernel's configuration, where it is the default.
    option: &'static str,
}

/// Every frame is zeroed when it is handed out.
pub const INIT_ON_ALLOC: Setting =
    Setting { parameter: "init_on_alloc", option: "CONFIG_INIT_ON_ALLOC_DEFAULT_ON" };

/// Every frame is zeroed when it comes back.
pub const INIT_ON_FREE: Setting =
    Setting { parameter: "init_on_free", option: "CONFIG_INIT_ON_FREE_DEFAULT_ON" };

/// What the running kernel says of itself.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    command_line: String,
    configuration: Option<String>,
}

impl Kernel {
    /// Reads the command line and, where it can be found, the configuration.
    pub fn read() -> Self {
        Self {
            command_line: fs::read_to_string("/proc/cmdline").unwrap_or_default(),
            configuration: configuration().ok(),
        }
    }

    /// Tells whether a setting is on; `None` when that is not known.
    pub fn is_on(&self, Setting { parameter, option }: Setting) -> Option<bool> {
        let words = self.command_line.split_whitespace();
        let mut given = words.filter_map(|word| word.strip_prefix(parameter)?.strip_prefix('='));
        if let Some(value) = given.next_back() {
            return Some(matches!(value, "1" | "on" | "y" | "Y"));
        }
        let mut lines = self.configuration.as_ref()?.lines();
        Some(lines.any(|line| line.strip_prefix(option) == Some("=y")))
    }
}

fn configuration() -> io::Result<String> {
    let mut text = String::new();
    match File::open("/proc/config.gz") {
        Ok(file) => GzDecoder::new(file).read_to_string(&mut text)?,
        Err(_) => {
            let release = uname()?.release().to_string_lossy().into_owned();
            File::open(format!("/boot/config-{release}"))?.read_to_string(&mut text)?
        }
    };
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_goes_before_the_configuration() {
        let kernel = |command_line: &str, configuration: Option<&str>| Kernel {
            command_line: command_line.into(),
            configuration: configuration.map(str::to_owned),
        };
        let on = "CONFIG_X=y\nCONFIG_INIT_ON_ALLOC_DEFAULT_ON=y\n";
        let off = "# CONFIG_INIT_ON_ALLOC_DEFAULT_ON is not set\n";
        let is_on = |kernel: Kernel| kernel.is_on(INIT_ON_ALLOC);
        assert_eq!(is_on(kernel("quiet\n", None)), None);
        assert_eq!(is_on(kernel("quiet\n", Some(on))), Some(true));
        assert_eq!(is_on(kernel("quiet\n", Some(off))), Some(false));
        assert_eq!(is_on(kernel("init_on_alloc=0 quiet\n", Some(on))), Some(false));
        assert_eq!(is_on(kernel("init_on_alloc=0 init_on_alloc=1\n", Some(off))), Some(true));
        assert_eq!(is_on(kernel("init_on_allocs=1\n", Some(off))), Some(false));
    }

    #[test]
    fn this_kernel_can_be_asked() {
        assert!(!Kernel::read().command_line.is_empty());
    }
}
