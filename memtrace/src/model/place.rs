//! Where a process runs: what the path of its cgroup says for certain, and nothing beyond.
//!
//! The forms are those of systemd, of the kubelet (cgroup drivers `systemd` and `cgroupfs`), Docker, containerd,
//! CRI-O and Podman.

use serde::Serialize;

/// Where a process runs. What the path does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// systemd's service or scope.
    pub unit: Option<String>,
    /// Id of the container, 64 hexadecimal digits.
    pub container: Option<String>,
    /// Kubernetes' UID of the pod.
    pub pod: Option<String>,
}

/// What runtimes write before the id of a container in the name of its scope.
const SCOPES: [&str; 4] = ["docker-", "cri-containerd-", "crio-", "libpod-"];

impl Place {
    /// Reads the path of a cgroup, as `/proc/PID/cgroup` shows it.
    pub fn of(path: &str) -> Self {
        let mut place = Self::default();
        let mut above = "";
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if part.ends_with(".service") || part.ends_with(".scope") {
                place.unit = Some(part.to_owned());
            }
            if let Some(pod) = pod(part, above) {
                place.pod = Some(pod);
            }
            if let Some(container) = container(part, above) {
                place.container = Some(container.to_owned());
            }
            above = part;
        }
        place
    }
}

fn container<'a>(part: &'a str, above: &str) -> Option<&'a str> {
    let scope = part
        .strip_suffix(".scope")
        .and_then(|name| SCOPES.iter().find_map(|runtime| name.strip_prefix(runtime)));
    let is_in_pod = || above.strip_prefix("pod").and_then(pod_uid).is_some();
    let bare = (above == "docker" || is_in_pod()).then_some(part);
    scope.or(bare).filter(|id| id.len() == 64 && is_hex(id))
}

fn pod(part: &str, above: &str) -> Option<String> {
    if let Some(name) = part.strip_suffix(".slice") {
        let (class, uid) = name.split_once("-pod").or_else(|| name.split_once("pod"))?;
        return if class.starts_with("kubepods") { pod_uid(uid) } else { None };
    }
    let is_of_kubelet = above == "kubepods" || above == "burstable" || above == "besteffort";
    if is_of_kubelet { pod_uid(part.strip_prefix("pod")?) } else { None }
}

/// Returns the UID of a pod: a UUID, or the 32 digits of one that a file on the node describes.
fn pod_uid(text: &str) -> Option<String> {
    let uid = text.replace('_', "-");
    let groups: Vec<&str> = uid.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let is_uid = matches!(lengths.as_slice(), [8, 4, 4, 4, 12] | [32]);
    (is_uid && groups.iter().all(|group| is_hex(group))).then_some(uid)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4aa1b6ed1e0a3ac9e1a2ad5d2c9b1f7e6d5c4b3a29180706050403020100ff";
    const UID: &str = "8f0c2c3e-5b1a-4d0e-9c7f-0123456789ab";

    fn place(path: &str) -> [Option<String>; 3] {
        let Place { unit, container, pod } = Place::of(path);
        [unit, container, pod]
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn units_containers_and_pods_are_told() {
        let under = UID.replace('-', "_");
        for (path, expected) in [
            ("/", [None, None, None]),
            ("/system.slice/redis.service", [some("redis.service"), None, None]),
            ("/user.slice/user-0.slice/session-3.scope", [some("session-3.scope"), None, None]),
            (&format!("/docker/{ID}"), [None, some(ID), None]),
            (
                &format!("/system.slice/docker-{ID}.scope"),
                [some(&format!("docker-{ID}.scope")), some(ID), None],
            ),
            (
                &format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"
                ),
                [some(&format!("cri-containerd-{ID}.scope")), some(ID), some(UID)],
            ),
            (
                &format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope"),
                [some(&format!("crio-{ID}.scope")), some(ID), some(UID)],
            ),
            (&format!("/kubepods/besteffort/pod{UID}/{ID}"), [None, some(ID), some(UID)]),
            (
                &format!("/kubepods/pod{UID}/{ID}/init.scope"),
                [some("init.scope"), some(ID), some(UID)],
            ),
        ] {
            assert_eq!(place(path), expected, "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        let longer = format!("{ID}0");
        for path in [
            format!("/{ID}"),
            format!("/lxc/{ID}"),
            format!("/docker/{longer}"),
            format!("/docker/{}", ID.to_uppercase()),
            format!("/system.slice/libpod-conmon-{ID}.scope").replace(".scope", ".slice"),
            format!("/podium/{ID}"),
            format!("/x/pod{UID}"),
            "/kubepods/burstable/podcast".to_owned(),
            "/kubepods.slice/kubepods-podcast.slice".to_owned(),
            format!("/my-pod{UID}.slice"),
        ] {
            assert_eq!(place(&path), [None, None, None], "{path}");
        }
        let conmon = format!("/machine.slice/libpod-conmon-{ID}.scope");
        assert_eq!(Place::of(&conmon).container, None);
    }
}
