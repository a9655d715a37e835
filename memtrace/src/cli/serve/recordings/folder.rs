//! The folder of recordings: `NAME.mtr`, and `NAME.partial` as long as one is being made.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
};

use nix::sys::statvfs::statvfs;

use super::{Recording, Settings, State};
use crate::source::trace_file::TraceReader;

const DONE: &str = "mtr";
const PARTIAL: &str = "partial";

/// The folder, and what it may hold.
pub(super) struct Folder(Settings);

impl Folder {
    /// Opens it, creates it if need be. What a daemon that was killed left unfinished goes, unless its
    /// recording ended as it should.
    pub(super) fn open(settings: Settings) -> Result<Self, String> {
        let folder = Self(settings);
        let path = &folder.0.folder;
        fs::create_dir_all(path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        for name in folder.names(PARTIAL)? {
            let partial = folder.partial(&name);
            let done = if is_whole(&partial) {
                fs::rename(&partial, folder.done(&name))
            } else {
                log::info!("{} is cut and goes", partial.display());
                fs::remove_file(&partial)
            };
            done.map_err(|error| format!("cannot tidy {}: {error}", partial.display()))?;
        }
        Ok(folder)
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.0
    }

    /// Returns the recordings that are in it, the oldest first.
    pub(super) fn list(&self) -> Result<Vec<Recording>, String> {
        let mut found: Vec<Recording> = self
            .names(DONE)?
            .iter()
            .filter_map(|name| {
                let mut recording = Recording::named(name)?;
                recording.bytes = Some(fs::metadata(self.done(name)).ok()?.len());
                recording.state = State::Done;
                Some(recording)
            })
            .collect();
        found.sort_by_key(|recording| recording.started_unix_s);
        Ok(found)
    }

    /// Makes room for one more.
    pub(super) fn make_room(&self, known: &mut Vec<Recording>) -> Result<(), String> {
        while known.len() >= self.0.kept {
            let oldest = known.iter().position(|known| known.state != State::Running);
            let Some(oldest) = oldest else { break };
            let Recording { id, state, .. } = known.remove(oldest);
            if state == State::Done {
                self.remove(&id)?;
            }
        }
        let path = &self.0.folder;
        let free = statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let free = free.blocks_available().saturating_mul(free.fragment_size());
        if free < self.0.size {
            return Err(format!(
                "{} has {free} bytes free; a recording may need {}",
                path.display(),
                self.0.size
            ));
        }
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        match fs::remove_file(self.done(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {name}: {error}"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn done(&self, name: &str) -> PathBuf {
        self.0.folder.join(format!("{name}.{DONE}"))
    }

    pub(super) fn partial(&self, name: &str) -> PathBuf {
        self.0.folder.join(format!("{name}.{PARTIAL}"))
    }

    /// Returns the names of the recordings whose files end so.
    fn names(&self, end: &str) -> Result<Vec<String>, String> {
        let path = &self.0.folder;
        let entries = fs::read_dir(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let name = |entry: io::Result<fs::DirEntry>| {
            let path = entry.ok()?.path();
            let name = path.file_stem()?.to_str()?;
            let is_one = path.extension()? == end && Recording::named(name).is_some();
            is_one.then(|| name.to_owned())
        };
        Ok(entries.filter_map(name).collect())
    }
}

/// Tells whether a trace ended as it should.
fn is_whole(path: &PathBuf) -> bool {
    let trace = File::open(path).ok().and_then(|file| TraceReader::open(file).ok());
    trace.is_some_and(|mut trace| trace.seek_end().is_ok() && trace.end().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &std::path::Path) -> Folder {
        Folder::open(Settings { folder: path.to_owned(), size: 1, kept: 2 }).expect("it is there")
    }

    fn names(known: &[Recording]) -> Vec<&str> {
        known.iter().map(|recording| recording.id.as_str()).collect()
    }

    #[test]
    fn what_was_cut_goes_and_what_is_none_of_ours_stays() {
        let place = tempfile::tempdir().expect("a folder");
        for name in ["a-1-5.partial", "b-1-7.mtr", "b-1-6.mtr", "notes.partial", "notes.mtr"] {
            fs::write(place.path().join(name), "cut").expect("it can be written");
        }
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/true.trace");
        fs::copy(golden, place.path().join("c-1-8.partial")).expect("it is there");
        let found = folder(place.path()).list().expect("it can be read");
        assert_eq!(names(&found), ["b-1-6", "b-1-7", "c-1-8"]);
        assert!(!place.path().join("a-1-5.partial").exists());
        assert!(place.path().join("notes.partial").exists());
    }

    #[test]
    fn the_oldest_makes_room() {
        let place = tempfile::tempdir().expect("a folder");
        for name in ["b-1-6.mtr", "b-1-7.mtr"] {
            fs::write(place.path().join(name), "").expect("it can be written");
        }
        let folder = folder(place.path());
        let mut known = folder.list().expect("it can be read");
        known[0].state = State::Running;
        folder.make_room(&mut known).expect("there is room");
        assert_eq!(names(&known), ["b-1-6"], "one that is being made stays");
        assert!(!place.path().join("b-1-7.mtr").exists());
    }

    #[test]
    fn a_full_disk_takes_none() {
        let place = tempfile::tempdir().expect("a folder");
        let mut folder = folder(place.path());
        folder.0.size = u64::MAX;
        let why = folder.make_room(&mut Vec::new()).expect_err("there is no such disk");
        assert!(why.contains("bytes free"), "{why}");
    }
}
