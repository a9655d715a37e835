//! `cargo xtask deb`: the Debian package. memtrace/Cargo.toml says what is in it; what memtrace writes of
//! itself is prepared here, cargo-deb packs it, and the package is looked at as dpkg would unpack it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::{on_path, read, run},
    workspace::Workspace,
};

/// Where files have to be that something else names.
const EXPECTED: [&str; 9] = [
    "usr/bin/memtrace",
    "usr/lib/systemd/system/memtrace.service",
    "usr/lib/sysusers.d/memtrace.conf",
    "etc/memtrace/serve.toml",
    "usr/share/man/man1/memtrace-serve.1.gz",
    "usr/share/bash-completion/completions/memtrace",
    "usr/share/zsh/vendor-completions/_memtrace",
    "usr/share/fish/vendor_completions.d/memtrace.fish",
    "usr/share/doc/memtrace/copyright",
];

/// Builds the package, checks it and says where it is.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo().args(["build", "--release", "--quiet", "--package", "memtrace"]))?;
    prepare(workspace)?;
    let said =
        read(workspace.cargo().args(["deb", "--package", "memtrace", "--no-build", "--strip"]))
            .context("is cargo-deb installed? `cargo install cargo-deb --locked`")?;
    let package = PathBuf::from(said.lines().last().unwrap_or_default());
    check(&package).with_context(|| format!("{} is not as it should be", package.display()))?;
    println!("{}", package.display());
    Ok(())
}

/// Writes what memtrace says of itself, and Debian's changelog, to `target/release/deb`.
fn prepare(workspace: &Workspace) -> Result<()> {
    let memtrace = workspace.target.join("release/memtrace");
    let folder = workspace.target.join("release/deb");
    let completions = folder.join("completions");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot take away what was prepared before")?;
    }
    fs::create_dir_all(&completions).context("cannot prepare the package")?;
    let man = folder.join("man");
    run(Command::new(&memtrace).arg("man").arg(&man))?;
    for (shell, file) in [("bash", "memtrace"), ("zsh", "_memtrace"), ("fish", "memtrace.fish")] {
        let script = read(Command::new(&memtrace).args(["completions", shell]))?;
        fs::write(completions.join(file), script).context("cannot write completions")?;
    }
    let version = read(Command::new(&memtrace).arg("--version"))?;
    let version = version.trim().rsplit(' ').next().unwrap_or_default();
    let mut git = Command::new("git");
    let date = read(git.current_dir(&workspace.root).args(["log", "-1", "--format=%aD"]))?;
    let changelog = format!(
        "memtrace ({version}-1) unstable; urgency=medium\n\n  * CHANGELOG.md says what is new.\n\n \
         -- the memtrace authors <memtrace@example.org>  {date}"
    );
    let file = folder.join("changelog");
    fs::write(&file, changelog).context("cannot write the changelog")?;
    run(Command::new("gzip").args(["-9", "--no-name", "--force", "--recursive"]).args([man, file]))
}

/// Unpacks it: are files where others look for them, and does the program run?
fn check(package: &Path) -> Result<()> {
    let root = tempfile::tempdir().context("cannot make a folder")?;
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(root.path()))?;
    for file in EXPECTED {
        ensure!(root.path().join(file).is_file(), "there is no {file}");
    }
    let text = |file: &str| {
        fs::read_to_string(root.path().join(file)).with_context(|| format!("cannot read {file}"))
    };
    let unit = text("usr/lib/systemd/system/memtrace.service")?;
    for named in ["/usr/bin/memtrace", "/etc/memtrace/serve.toml"] {
        ensure!(unit.contains(named), "the unit does not name {named}");
    }
    ensure!(text("DEBIAN/conffiles")?.contains("/etc/memtrace/serve.toml"), "it is no conffile");
    let postinst = text("DEBIAN/postinst")?;
    ensure!(postinst.contains("systemd-sysusers"), "nobody makes the daemon's user: {postinst}");
    ensure!(!postinst.contains("deb-systemd-invoke start"), "it starts unasked: {postinst}");
    let postrm = text("DEBIAN/postrm")?;
    ensure!(postrm.contains("/var/lib/memtrace"), "its recordings stay for ever: {postrm}");
    let memtrace = root.path().join("usr/bin/memtrace");
    let printed = read(Command::new(&memtrace).args(["serve", "--print-config"]))?;
    ensure!(printed == text("etc/memtrace/serve.toml")?, "its configuration is not the default");
    if !on_path("lintian").is_empty() {
        run(Command::new("lintian").args(["--fail-on", "error"]).arg(package))?;
    }
    Ok(())
}
