//! How far long work is, in bytes: counted by who reads them, asked by who waits.
//!
//! Not here: who shows it, and how.

use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How far work is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is worked on.
    pub what: String,
    /// Bytes that are done, or were passed over.
    pub at: u64,
    /// Where it began to read one byte after the other.
    pub from: u64,
    /// All bytes; `None` when nobody knows how many they will be.
    pub total: Option<u64>,
    /// Where the part that is worked on ends.
    pub end: u64,
}

/// Counts. Its clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<Mutex<Progress>>);

impl Counter {
    /// Nothing is done yet of so many bytes.
    pub fn new(total: Option<u64>) -> Self {
        Self(Arc::new(Mutex::new(Progress { total, ..Progress::default() })))
    }

    /// Less than all may be needed: nobody knows when it ends.
    pub fn forget_total(&self) {
        self.lock().total = None;
    }

    /// Begins a part of at most `len` bytes. The part before it is done, however much of it was read.
    pub fn begin(&self, what: String, len: u64) {
        let mut progress = self.lock();
        let at = progress.end;
        *progress = Progress { what, at, end: at.saturating_add(len), ..*progress };
    }

    /// Adds bytes that were read. What is read of a part again is done already.
    pub fn add(&self, bytes: usize) {
        let mut progress = self.lock();
        progress.at = progress.at.saturating_add(bytes as u64).min(progress.end);
    }

    /// Goes on at an offset.
    fn go_to(&self, offset: u64) {
        let mut progress = self.lock();
        (progress.at, progress.from) = (offset, offset);
    }

    /// Returns how far it is by now.
    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of which is counted what was read.
#[derive(Debug)]
pub struct Counted<F> {
    /// The file.
    pub file: F,
    /// Who counts.
    pub counter: Counter,
}

impl<F: Read> Read for Counted<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(into)?;
        self.counter.add(len);
        Ok(len)
    }
}

impl<F: Seek> Seek for Counted<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let offset = self.file.seek(to)?;
        self.counter.go_to(offset);
        Ok(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(counter: &Counter) -> (u64, u64) {
        let Progress { at, from, .. } = counter.progress();
        (at, from)
    }

    #[test]
    fn what_was_read_is_done_and_what_was_passed_over_too() -> io::Result<()> {
        let counter = Counter::new(Some(100));
        counter.begin("file".to_owned(), 100);
        let mut file = Counted { file: io::Cursor::new([0; 100]), counter: counter.clone() };
        file.read_exact(&mut [0; 10])?;
        assert_eq!(figures(&counter), (10, 0));
        file.seek(SeekFrom::Start(70))?;
        file.read_exact(&mut [0; 20])?;
        assert_eq!(figures(&counter), (90, 70));
        Ok(())
    }

    #[test]
    fn a_part_is_done_when_the_next_begins_whether_less_of_it_was_read_or_more() {
        let counter = Counter::new(Some(100));
        counter.begin("a".to_owned(), 60);
        counter.add(1);
        counter.begin("b".to_owned(), 30);
        assert_eq!(figures(&counter), (60, 0));
        counter.add(1000);
        assert_eq!(figures(&counter), (90, 0));
        counter.begin("c".to_owned(), u64::MAX);
        counter.add(1);
        let Progress { what, at, total, .. } = counter.progress();
        assert_eq!((what.as_str(), at, total), ("c", 91, Some(100)));
    }
}
