//! The manifests for Kubernetes, held against its schemas: `pip install kubernetes-validate` (into the folder
//! that `MEMTRACE_KUBERNETES` names, if it does).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use libtest_mimic::{Completion, Trial};

use crate::{daemon::MEMTRACE, python, trial::without};

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");

/// The first that has every field, and the newest that the schemas are for.
const VERSIONS: [&[&str]; 2] = [&["--kubernetes-version", "1.30"], &[]];

pub(crate) fn trials() -> Vec<Trial> {
    let valid = Trial::ignorable_test("kubernetes_takes_the_manifests", || {
        if !python(&["-c", "import kubernetes_validate"]).is_some_and(|ran| ran.status.success()) {
            return without("kubernetes-validate");
        }
        validate();
        Ok(Completion::Completed)
    });
    let same = Trial::test("every_way_to_install_gives_the_same_rights", || {
        same_rights();
        Ok(())
    });
    vec![valid, same]
}

fn python(arguments: &[&str]) -> Option<Output> {
    python::python("MEMTRACE_KUBERNETES").args(arguments).output().ok()
}

fn manifests() -> Vec<PathBuf> {
    let folder = Path::new(PACKAGING).join("kubernetes");
    let kustomization = fs::read_to_string(folder.join("kustomization.yaml")).expect("it is there");
    let files = fs::read_dir(&folder).expect("it is there").flatten().map(|entry| entry.path());
    let manifests: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|file| !file.ends_with("kustomization.yaml"))
        .collect();
    for file in &manifests {
        let name = file.file_name().expect("it has one").to_string_lossy();
        assert!(kustomization.contains(&format!("\n- {name}\n")), "{name} is not applied");
    }
    manifests
}

fn validate() {
    let manifests = manifests();
    assert_eq!(manifests.len(), 3, "{manifests:?}");
    for file in manifests {
        for version in VERSIONS {
            let mut arguments = vec!["-m", "kubernetes_validate", "--strict"];
            arguments.extend(version);
            arguments.push(file.to_str().expect("a path"));
            let output = python(&arguments).expect("python3 is there");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{version:?}: {said}");
        }
    }
}

fn same_rights() {
    let read =
        |file: &str| fs::read_to_string(Path::new(PACKAGING).join(file)).expect("it is there");
    let unit = read("systemd/memtrace.service");
    let of_unit = |name: &str| {
        let list = unit.lines().find_map(|line| line.strip_prefix(name)).expect("it has some");
        list.split(' ').map(|capability| capability.replace("CAP_", "")).collect::<Vec<_>>()
    };
    let capabilities = of_unit("AmbientCapabilities=");
    assert_eq!(capabilities, of_unit("CapabilityBoundingSet="));
    let quoted: Vec<String> = capabilities.iter().map(|name| format!("\"{name}\"")).collect();
    let added = format!("            add: [{}]\n", quoted.join(", "));
    assert!(read("kubernetes/daemonset.yaml").contains(&added), "it does not add {added}");
    let options: Vec<String> =
        capabilities.iter().map(|name| format!("--cap-add={name}")).collect();
    let docs = fs::read_to_string(Path::new(PACKAGING).join("../../docs/INSTALL.md"));
    let docs = docs.expect("it is there");
    assert!(docs.contains(&options.join(" ")), "the docs do not say {options:?}");
    // What is configured there is a configuration.
    let folder = tempfile::tempdir().expect("a folder");
    let (file, token) = (folder.path().join("serve.toml"), folder.path().join("token"));
    let config = read("kubernetes/serve.toml");
    let here = config.replace("/etc/memtrace-token/token", token.to_str().expect("a path"));
    assert_ne!(here, config);
    fs::write(&token, "0123456789abcdef").expect("it can be written");
    fs::write(&file, here).expect("it can be written");
    let mut command = Command::new(MEMTRACE);
    let output = command.args(["serve", "--check-config", "--config"]).arg(&file).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{output:?}");
}
