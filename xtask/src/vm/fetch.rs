//! Kernels and QEMU, from Debian's packages into a cache that outlives the clone.

use std::{
    cell::OnceCell,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::Apt,
    cache_folder,
    kernels::{self, Candidate, Line},
    qemu, unpack,
};

/// QEMU and what it loads; its libraries are those of Debian's own qemu-system-x86.
const QEMU_PACKAGES: [&str; 4] =
    ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];
const QEMU_SUITE: &str = "bookworm-backports/";

/// The folder that everything is fetched into; one xtask at a time has it.
pub(super) struct Cache {
    folder: PathBuf,
    apt: OnceCell<Apt>,
    _lock: File,
}

/// A kernel, ready to boot.
pub(super) struct Kernel {
    /// What was asked for.
    pub(super) line: Line,
    /// What it is today.
    pub(super) release: String,
    /// The kernel as an ELF file.
    pub(super) image: PathBuf,
}

impl Cache {
    /// Opens the cache and waits until no other xtask uses it.
    pub(super) fn open() -> Result<Self> {
        let folder = cache_folder()?;
        let cannot = || format!("cannot use the cache {}", folder.display());
        fs::create_dir_all(&folder).with_context(cannot)?;
        let lock = File::create(folder.join("lock")).with_context(cannot)?;
        lock.lock().with_context(cannot)?;
        Ok(Self { folder, apt: OnceCell::new(), _lock: lock })
    }

    /// Returns the kernel that a line stands for today, or `None` where apt has none.
    pub(super) fn kernel(&self, line: &Line) -> Result<Option<Kernel>> {
        let Some(candidate) = self.resolve(line)? else {
            return Ok(None);
        };
        match self.fetch(line, &candidate) {
            Ok(kernel) => Ok(Some(kernel)),
            Err(error) => {
                // a day-old list may name what was superseded since
                println!("vm: {error:#}: trying again with new package lists");
                self.apt()?.update()?;
                let Some(candidate) = self.resolve(line)? else {
                    return Ok(None);
                };
                self.fetch(line, &candidate).map(Some)
            }
        }
    }

    /// Returns the QEMU that [`Self::fetch_qemu`] put here.
    pub(super) fn qemu(&self) -> Option<PathBuf> {
        let folder = self.folder.join("qemu");
        qemu::program(&folder).is_file().then_some(folder)
    }

    /// Fetches QEMU 10 where this machine's own is older.
    pub(super) fn fetch_qemu(&self) -> Result<()> {
        if let Some(major) = qemu::installed_major().filter(|major| *major >= qemu::GOOD_MAJOR) {
            println!("vm: this machine's own QEMU {major} is new enough");
            return Ok(());
        }
        if self.qemu().is_some() {
            return Ok(());
        }
        println!("vm: fetching QEMU from Debian's backports");
        let apt = self.apt()?;
        let temporary = self.temporary()?;
        for package in QEMU_PACKAGES {
            let madison = apt.cache(&["madison", package])?;
            let version = backport(&madison)
                .with_context(|| format!("apt has no {package} in {QEMU_SUITE}"))?;
            apt.unpack(&format!("{package}={version}"), temporary.path())?;
        }
        qemu::major(&qemu::program(temporary.path())).context(
            "the QEMU that was fetched does not run: install qemu-system-x86 for its libraries",
        )?;
        replace(temporary, &self.folder.join("qemu"))
    }

    fn resolve(&self, line: &Line) -> Result<Option<Candidate>> {
        let apt = self.apt()?;
        let names = apt.cache(&["pkgnames", "linux-image-"])?;
        let packages = kernels::packages(&names);
        if packages.is_empty() {
            return Ok(None);
        }
        let madison = apt.cache(&[&["madison"], packages.as_slice()].concat())?;
        Ok(line.resolve(&kernels::candidates(&madison)).cloned())
    }

    fn fetch(&self, line: &Line, candidate: &Candidate) -> Result<Kernel> {
        let Candidate { release, version, .. } = candidate;
        let folder = self.folder.join("kernels").join(line.to_string());
        let kernel =
            Kernel { line: line.clone(), release: release.clone(), image: folder.join("vmlinux") };
        let label = format!("{release} {version}");
        if fs::read_to_string(folder.join("package")).is_ok_and(|cached| cached == label) {
            return Ok(kernel);
        }
        println!("vm: fetching kernel {line}: {label}");
        let apt = self.apt()?;
        let packages = self.temporary()?;
        apt.unpack(&format!("linux-image-{release}={version}"), packages.path())?;
        if compressed(packages.path()).is_none() {
            // since 6.19 the image package is an empty shell over this one
            apt.unpack(&format!("linux-binary-{release}"), packages.path())?;
        }
        let image = compressed(packages.path())
            .with_context(|| format!("the packages of {release} have no vmlinuz"))?;
        let image = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
        let ready = self.temporary()?;
        let write = |name: &str, bytes: &[u8]| {
            fs::write(ready.path().join(name), bytes)
                .with_context(|| format!("cannot write {name} into the cache"))
        };
        write("vmlinux", &unpack::elf(&image)?)?;
        write("package", label.as_bytes())?;
        replace(ready, &folder)?;
        Ok(kernel)
    }

    fn apt(&self) -> Result<&Apt> {
        if let Some(apt) = self.apt.get() {
            return Ok(apt);
        }
        let apt = Apt::open(self.folder.join("apt"))?;
        Ok(self.apt.get_or_init(|| apt))
    }

    fn temporary(&self) -> Result<tempfile::TempDir> {
        tempfile::tempdir_in(&self.folder).context("cannot make a folder in the cache")
    }
}

/// Finds vmlinuz in unpacked packages: in /boot, from 7.2 on beside the modules.
fn compressed(packages: &Path) -> Option<PathBuf> {
    let files = |folder: &str| {
        packages.join(folder).read_dir().into_iter().flatten().flatten().map(|file| file.path())
    };
    let in_boot = files("boot").find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    });
    in_boot.or_else(|| {
        files("usr/lib/modules").map(|path| path.join("vmlinuz")).find(|path| path.is_file())
    })
}

/// Reads the version in QEMU's suite from `apt-cache madison`.
fn backport(madison: &str) -> Option<&str> {
    madison.lines().find_map(|line| {
        let mut fields = line.split('|').map(str::trim).skip(1);
        let version = fields.next()?;
        fields.next()?.split(' ').nth(1)?.starts_with(QEMU_SUITE).then_some(version)
    })
}

/// Puts a finished folder in the place of an older one.
fn replace(ready: tempfile::TempDir, place: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", place.display());
    if place.exists() {
        fs::remove_dir_all(place).with_context(cannot)?;
    }
    let Some(above) = place.parent() else { bail!("{} has no parent", place.display()) };
    fs::create_dir_all(above).with_context(cannot)?;
    fs::rename(ready.keep(), place).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_comes_from_its_suite_alone() {
        let madison = "\
qemu-system-x86 | 1:11.1.3+ds-1~bpo13+1 | http://mirror/debian trixie-backports/main amd64 Packages
qemu-system-x86 | 1:10.0.2+ds-2~bpo12+1 | http://mirror/debian bookworm-backports/main amd64 Packages
qemu-system-x86 | 1:7.2+dfsg-7+deb12u15 | http://mirror/debian bookworm/main amd64 Packages
";
        assert_eq!(backport(madison), Some("1:10.0.2+ds-2~bpo12+1"));
        assert_eq!(backport(""), None);
    }
}
