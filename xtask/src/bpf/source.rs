//! The hash of all that the BPF object is made from.
//!
//! It covers the sources and manifests of memtrace-ebpf and memtrace-common, what those take from
//! the workspace's manifest, the locked versions of what they depend on, and the compiler's flags;
//! not the rest of Cargo.lock, so that a new dependency of memtrace does not make the object stale.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use super::build::FLAGS;

/// The crates that are compiled into the object; the first is its root.
const CRATES: [&str; 2] = ["memtrace-ebpf", "memtrace-common"];

/// Hashes everything that the object is made from, as lower-case hex.
pub(super) fn hash(root: &Path) -> Result<String> {
    let mut parts = BTreeMap::from([("flags".to_owned(), FLAGS.join(" ").into_bytes())]);
    let mut manifests = BTreeMap::new();
    for name in CRATES {
        let folder = root.join(name);
        collect(&folder.join("src"), &format!("{name}/src"), &mut parts)?;
        let manifest = read(&folder.join("Cargo.toml"))?;
        parts.insert(format!("{name}/Cargo.toml"), manifest.clone().into_bytes());
        manifests.insert(name, table(&manifest, name)?);
    }
    let workspace = table(&read(&root.join("Cargo.toml"))?, "Cargo.toml")?;
    parts.insert("Cargo.toml".into(), inherited(&workspace, &manifests)?.into_bytes());
    let lock = table(&read(&root.join("Cargo.lock"))?, "Cargo.lock")?;
    parts.insert("Cargo.lock".into(), locked(&lock, &manifests).join("\n").into_bytes());
    Ok(digest(&parts))
}

/// Returns the SHA-256 of some bytes, as lower-case hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Hashes names and contents, each with its length, in the order of the names.
fn digest(parts: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hasher = Sha256::new();
    for (name, bytes) in parts {
        for part in [name.as_bytes(), bytes] {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
    }
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}

fn collect(folder: &Path, name: &str, parts: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let cannot = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{name}/{file}");
        if path.is_dir() {
            collect(&path, &name, parts)?;
        } else {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            parts.insert(name, bytes);
        }
    }
    Ok(())
}

/// Writes down what the crates take from the workspace's manifest.
fn inherited(workspace: &Table, manifests: &BTreeMap<&str, Table>) -> Result<String> {
    let at = |path: &[&str]| {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(workspace.get(*first)?, |value, key| value.get(key))
    };
    let mut taken = Table::new();
    for (name, path) in
        [("package", &["workspace", "package"] as &[&str]), ("profile", &["profile", "release"])]
    {
        if let Some(value) = at(path) {
            taken.insert(name.into(), value.clone());
        }
    }
    let mut dependencies = Table::new();
    for name in manifests.values().flat_map(dependencies_of) {
        if let Some(value) = at(&["workspace", "dependencies", name.as_str()]) {
            dependencies.insert(name, value.clone());
        }
    }
    taken.insert("dependencies".into(), dependencies.into());
    toml::to_string(&taken).context("cannot write down the workspace's settings")
}

/// Returns each package that the object depends on, as `name version checksum`, sorted.
fn locked(lock: &Table, manifests: &BTreeMap<&str, Table>) -> Vec<String> {
    let empty = Vec::new();
    let packages = lock.get("package").and_then(Value::as_array).unwrap_or(&empty);
    let text = |package: &Value, key| -> String {
        package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut seen = BTreeSet::new();
    let mut open = vec![CRATES[0].to_owned()];
    while let Some(wanted) = open.pop() {
        // a dependency is `name`, or `name version` where the lock has more than one of that name
        let (name, version) = wanted.split_once(' ').unwrap_or((&wanted, ""));
        let version = version.split(' ').next().unwrap_or_default();
        for package in packages.iter().filter(|package| {
            text(package, "name") == name
                && (version.is_empty() || text(package, "version") == version)
        }) {
            let entry = ["name", "version", "checksum"].map(|key| text(package, key)).join(" ");
            if !seen.insert(entry) {
                continue;
            }
            // the lock does not tell our own crates' dev-dependencies apart, their manifests do
            let ours = manifests.get(name).map(dependencies_of);
            let needs = package.get("dependencies").and_then(Value::as_array).unwrap_or(&empty);
            open.extend(needs.iter().filter_map(Value::as_str).map(str::to_owned).filter(|need| {
                let name = need.split(' ').next().unwrap_or_default();
                ours.as_ref().is_none_or(|ours| ours.iter().any(|own| own == name))
            }));
        }
    }
    seen.into_iter().collect()
}

fn dependencies_of(manifest: &Table) -> Vec<String> {
    ["dependencies", "build-dependencies"]
        .iter()
        .filter_map(|kind| manifest.get(*kind)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn table(text: &str, name: &str) -> Result<Table> {
    text.parse().with_context(|| format!("cannot understand {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(list: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        list.iter().map(|(name, text)| ((*name).into(), text.as_bytes().into())).collect()
    }

    #[test]
    fn the_order_of_the_files_does_not_matter_but_names_and_contents_do() {
        let one = digest(&parts(&[("a", "1"), ("b", "2")]));
        assert_eq!(one, digest(&parts(&[("b", "2"), ("a", "1")])));
        assert_ne!(one, digest(&parts(&[("a", "2"), ("b", "1")])));
        assert_ne!(one, digest(&parts(&[("a", "12"), ("b", "")])));
        assert_ne!(digest(&parts(&[("a", "b")])), digest(&parts(&[("ab", "")])));
    }

    #[test]
    fn a_hash_is_lower_case_hex() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    const LOCK: &str = r#"
        [[package]]
        name = "memtrace-ebpf"
        version = "0.1.0"
        dependencies = ["aya-ebpf", "memtrace-common"]
        [[package]]
        name = "memtrace-common"
        version = "0.1.0"
        dependencies = ["arbtest", "zerocopy 0.8.1"]
        [[package]]
        name = "aya-ebpf"
        version = "0.2.1"
        checksum = "aa"
        [[package]]
        name = "zerocopy"
        version = "0.7.0"
        checksum = "bb"
        [[package]]
        name = "zerocopy"
        version = "0.8.1"
        checksum = "cc"
        [[package]]
        name = "arbtest"
        version = "0.3.0"
        [[package]]
        name = "tokio"
        version = "1.0.0"
    "#;

    fn manifests() -> BTreeMap<&'static str, Table> {
        let ebpf = "[dependencies]\naya-ebpf = {}\nmemtrace-common = {}";
        let common = "[dependencies]\nzerocopy = {}\n[dev-dependencies]\narbtest = {}";
        [("memtrace-ebpf", ebpf), ("memtrace-common", common)]
            .map(|(name, text)| (name, text.parse().expect("valid TOML")))
            .into()
    }

    #[test]
    fn only_what_the_object_depends_on_is_locked_into_it() {
        let lock = LOCK.parse().expect("valid TOML");
        assert_eq!(
            locked(&lock, &manifests()),
            [
                "aya-ebpf 0.2.1 aa",
                "memtrace-common 0.1.0 ",
                "memtrace-ebpf 0.1.0 ",
                "zerocopy 0.8.1 cc",
            ]
        );
    }

    #[test]
    fn only_inherited_settings_count() {
        let write = |tokio: &str, aya: &str| {
            let text = format!(
                "[workspace.dependencies]\ntokio = '{tokio}'\naya-ebpf = '{aya}'\n\
                 [profile.release]\ndebug = 1"
            );
            inherited(&text.parse().expect("valid TOML"), &manifests()).expect("it can be written")
        };
        assert_eq!(write("1", "0.2"), write("2", "0.2"));
        assert_ne!(write("1", "0.2"), write("1", "0.3"));
        assert!(write("1", "0.2").contains("debug = 1"));
    }
}
