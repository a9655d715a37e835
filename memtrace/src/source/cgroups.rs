//! Cgroups by number: the kernel's number of a cgroup is the inode number of its folder
//! (kernel/cgroup/cgroup.c, 5.10 to 7.3). They are those of version 2, or of the memory controller where
//! that has a hierarchy of its own (version 1, cgroups(7)).

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::procfs::parse_cgroup;

/// So many cgroups may be known that nobody asks for.
const SPARE: usize = 256;

/// The folders of the hierarchy, as last looked at.
#[derive(Debug, Default)]
pub struct Cgroups {
    paths: HashMap<u64, String>,
    /// Numbers that had no folder when it was looked at.
    unknown: HashSet<u64>,
}

impl Cgroups {
    /// Looks for numbers that are not known, and returns all paths by number, each as
    /// `/proc/PID/cgroup` would show it. Cgroups come and go: others are forgotten now and then.
    pub fn paths(&mut self, wanted: &HashSet<u64>) -> &HashMap<u64, String> {
        if self.paths.len() + self.unknown.len() > 2 * wanted.len() + SPARE {
            self.paths.retain(|number, _| wanted.contains(number));
            self.unknown.retain(|number| wanted.contains(number));
        }
        let is_new =
            |number: &&u64| !self.paths.contains_key(number) && !self.unknown.contains(number);
        if wanted.iter().any(|number| is_new(&number)) {
            if let Some(root) = mount_point() {
                self.walk(&root, "/");
            }
            let paths = &self.paths;
            self.unknown.extend(wanted.iter().filter(|number| !paths.contains_key(number)));
        }
        &self.paths
    }

    /// Returns those of some numbers whose folders are still there.
    pub fn still_there(&self, numbers: HashSet<u64>) -> HashSet<u64> {
        let root = mount_point();
        let is_there = |number: &u64| {
            let place = root.as_deref().zip(self.paths.get(number));
            let folder = place.map(|(root, path)| folder_of(root, Path::new(path)));
            folder
                .and_then(|folder| fs::metadata(folder).ok())
                .is_some_and(|it| it.ino() == *number)
        };
        numbers.into_iter().filter(is_there).collect()
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

/// Returns the folder of a cgroup, of which `/proc` says where it is.
fn folder_of(root: &Path, cgroup: &Path) -> PathBuf {
    root.join(cgroup.strip_prefix("/").unwrap_or(cgroup))
}

/// Returns how much memory this process and its like may have, `None` where nothing limits them: the lowest
/// limit of their cgroup and of those above it that can be seen from here.
pub fn memory_limit() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_below(&mount_point()?, parse_cgroup(&text)?)
}

fn limit_below(root: &Path, cgroup: &str) -> Option<u64> {
    let limits = Path::new(cgroup).ancestors().flat_map(|above| {
        let folder = folder_of(root, above);
        ["memory.max", "memory.limit_in_bytes"].map(|file| fs::read_to_string(folder.join(file)))
    });
    // Without a limit there is no number, or one that no machine has (version 1).
    let limits = limits.filter_map(|text| text.ok()?.trim().parse().ok());
    limits.min().filter(|limit| *limit < 1 << 60)
}

/// Tells whether the memory controller has a hierarchy of its own.
pub fn are_of_version_1() -> bool {
    fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| has_memory(&text))
}

fn has_memory(text: &str) -> bool {
    text.lines().filter_map(|line| line.split(':').nth(1)).any(is_of_memory)
}

/// Tells whether the memory controller is among those of a hierarchy (cgroups(7)).
pub(super) fn is_of_memory(controllers: &str) -> bool {
    controllers.split(',').any(|controller| controller == "memory")
}

/// Returns where the hierarchy is mounted.
fn mount_point() -> Option<PathBuf> {
    parse_mounts(&fs::read_to_string("/proc/self/mounts").ok()?, are_of_version_1())
}

fn parse_mounts(text: &str, version_1: bool) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        let is_it = match kind {
            "cgroup" => version_1 && is_of_memory(words.next()?),
            "cgroup2" => !version_1,
            _ => false,
        };
        is_it.then(|| PathBuf::from(place))
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
    fn the_hierarchy_with_the_memory_controller_is_taken() {
        let mounts = "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n";
        let place = |name: &str| Some(Path::new("/sys/fs/cgroup").join(name));
        assert_eq!(parse_mounts(mounts, false), place("unified"));
        assert_eq!(parse_mounts(mounts, true), place("memory"));
        assert_eq!(parse_mounts("tmpfs / tmpfs rw 0 0\nshort", true), None);
        assert!(has_memory("9:name=systemd:/\n4:memory,hugetlb:/a\n0::/\n"));
        assert!(!has_memory("9:name=memory:/\n0::/memory\n"));
    }

    #[test]
    fn the_lowest_limit_above_counts() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let set = |folder: &str, file: &str, text: &str| {
            fs::create_dir_all(root.path().join(folder))?;
            fs::write(root.path().join(folder).join(file), text)
        };
        set("a/b", "memory.max", "max\n")?;
        assert_eq!(limit_below(root.path(), "/a/b"), None);
        set("a", "memory.max", "67108864\n")?;
        set("a/b/c", "memory.max", "100000000\n")?;
        assert_eq!(limit_below(root.path(), "/a/b/c"), Some(64 << 20));
        assert_eq!(limit_below(root.path(), "/elsewhere"), None);
        set("one", "memory.limit_in_bytes", "9223372036854771712\n")?;
        assert_eq!(limit_below(root.path(), "/one"), None);
        // A container may not see where it is, but its own root.
        set("", "memory.limit_in_bytes", "50000000\n")?;
        assert_eq!(limit_below(root.path(), "/docker/0123"), Some(50_000_000));
        Ok(())
    }

    #[test]
    fn those_that_nobody_asks_for_are_forgotten() {
        let (numbers, one): (HashSet<u64>, _) = ((0..1000).collect(), HashSet::from([5]));
        let mut cgroups = Cgroups { unknown: numbers.clone(), ..Cgroups::default() };
        cgroups.paths.extend(numbers.iter().map(|number| (*number, "/".to_owned())));
        assert_eq!(cgroups.paths(&numbers).len(), 1000, "they are asked for");
        assert_eq!(cgroups.paths(&one).len(), 1);
        assert_eq!(cgroups.unknown, one);
    }
}
