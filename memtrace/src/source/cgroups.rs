//! Cgroups by number (version 2): the kernel's number of a cgroup is the inode number of its folder
//! (kernel/cgroup/cgroup.c, 5.10 to 7.3).

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The folders of the hierarchy, as last looked at.
#[derive(Debug, Default)]
pub struct Cgroups {
    paths: HashMap<u64, String>,
    /// Numbers that had no folder when it was looked at.
    unknown: HashSet<u64>,
}

impl Cgroups {
    /// Looks for numbers that are not known, and returns all paths by number, each as
    /// `/proc/PID/cgroup` would show it.
    pub fn paths(&mut self, wanted: impl IntoIterator<Item = u64>) -> &HashMap<u64, String> {
        let is_new =
            |number: &u64| !self.paths.contains_key(number) && !self.unknown.contains(number);
        let new: Vec<u64> = wanted.into_iter().filter(is_new).collect();
        if !new.is_empty() {
            if let Some(root) = mount_point() {
                self.walk(&root, "/");
            }
            let paths = &self.paths;
            self.unknown.extend(new.into_iter().filter(|number| !paths.contains_key(number)));
        }
        &self.paths
    }

    fn walk(&mut self, folder: &Path, name: &str) {
        let Ok(metadata) = fs::metadata(folder) else { return };
        self.paths.insert(metadata.ino(), name.to_owned());
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let child = format!(
                    "{}/{}",
                    name.trim_end_matches('/'),
                    entry.file_name().to_string_lossy()
                );
                self.walk(&entry.path(), &child);
            }
        }
    }
}

/// Returns where the hierarchy is mounted.
fn mount_point() -> Option<PathBuf> {
    parse_mounts(&fs::read_to_string("/proc/self/mounts").ok()?)
}

fn parse_mounts(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_found_by_their_number() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let deep = root.path().join("a.slice/b.scope");
        fs::create_dir_all(&deep)?;
        let number = |path: &Path| fs::metadata(path).map(|metadata| metadata.ino());
        let mut cgroups = Cgroups::default();
        cgroups.walk(root.path(), "/");
        assert_eq!(cgroups.paths[&number(root.path())?], "/");
        assert_eq!(cgroups.paths[&number(&deep)?], "/a.slice/b.scope");
        Ok(())
    }

    #[test]
    fn only_the_second_version_is_taken() {
        let mounts = "cgroup /sys/fs/cgroup/memory cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(parse_mounts(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(parse_mounts("tmpfs / tmpfs rw 0 0\nshort"), None);
    }
}
