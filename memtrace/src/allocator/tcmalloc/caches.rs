//! What lies free in the caches of threads and in the chains between them and the central lists.

use std::{
    collections::{HashSet, VecDeque},
    io,
    ops::Range,
};

use super::{
    find::{self, Classes},
    layout::{
        CLASSES,
        cache::{LENGTH, LIST, SIZE, TAIL},
        central,
    },
};
use crate::{
    allocator::{mappings::Mappings, memory::ReadMemory},
    model::region_map::PAGE,
};

/// Objects whose place is kept at most, and caches of threads.
const MOST_OBJECTS: usize = 1 << 19;
const MOST_CACHES: usize = 1 << 16;
/// Pages that are kept to be read again.
const KEPT: usize = 1024;

/// Reads words here and there.
pub(super) struct Words<'a, M> {
    memory: &'a M,
    pages: Vec<Option<(u64, Vec<u64>)>>,
}

impl<'a, M: ReadMemory> Words<'a, M> {
    /// Nothing was read yet.
    pub(super) fn new(memory: &'a M) -> Self {
        Self { memory, pages: vec![None; KEPT] }
    }

    /// Returns a word; `None` when it is not there to be read.
    pub(super) fn word(&mut self, address: u64) -> io::Result<Option<u64>> {
        if !address.is_multiple_of(8) {
            return Ok(None);
        }
        let page = address & !(PAGE - 1);
        let kept = &mut self.pages[(page / PAGE) as usize % KEPT];
        if kept.as_ref().is_none_or(|(tag, _)| *tag != page) {
            *kept = self.memory.words(page, PAGE as usize / 8)?.map(|words| (page, words));
        }
        Ok(kept.as_ref().map(|(_, words)| words[(address % PAGE / 8) as usize]))
    }
}

/// What lies in caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cached {
    /// Bytes in caches of threads, and in chains between them and the central lists.
    pub(super) threads: u64,
    pub(super) transfer: u64,
    /// Where the objects are, ascending.
    pub(super) objects: Vec<u64>,
    /// There are more of them.
    pub(super) is_cut: bool,
}

impl Cached {
    /// Reads all caches; `None` when the central lists were not found.
    pub(super) fn read<M: ReadMemory>(
        memory: &M,
        mappings: &Mappings,
        data: &[Range<u64>],
        classes: &Classes,
    ) -> io::Result<Option<Self>> {
        let count = classes.sizes.len();
        let central = find::search(memory, data, |start, words| {
            find::central_lists(mappings, start, words, count)
        })?;
        let Some(central) = central else { return Ok(None) };
        let mut cached = Self::default();
        let mut words = Words::new(memory);
        for (class, list) in central.chunks_exact(central::WORDS).enumerate().skip(1) {
            let used = (list[central::USED] as u32 as usize).min(central::MOST_SLOTS);
            let (size, moved) = (classes.sizes[class], classes.moved[class]);
            cached.transfer += used as u64 * moved * size;
            for slot in 0..used {
                cached.follow(&mut words, mappings, list[central::SLOTS + 2 * slot], moved)?;
            }
        }
        each_thread(memory, mappings, data, classes, |lists| {
            for (class, list) in lists.chunks_exact(LIST).take(count).enumerate().skip(1) {
                let length = u64::from(list[LENGTH] as u32);
                cached.threads = cached.threads.saturating_add(length * classes.sizes[class]);
                cached.follow(&mut words, mappings, list[0], length)?;
            }
            Ok(())
        })?;
        cached.objects.sort_unstable();
        cached.objects.dedup();
        Ok(Some(cached))
    }

    /// Keeps where the objects of a chain are, as far as it makes sense.
    fn follow<M: ReadMemory>(
        &mut self,
        words: &mut Words<'_, M>,
        mappings: &Mappings,
        mut object: u64,
        length: u64,
    ) -> io::Result<()> {
        for _ in 0..length {
            if self.objects.len() >= MOST_OBJECTS {
                self.is_cut = true;
                break;
            }
            if !mappings.is_private_writable(object) {
                break;
            }
            let Some(next) = words.word(object)? else { break };
            self.objects.push(object);
            object = next;
        }
        Ok(())
    }
}

/// Calls `each` with the lists of every thread's cache: each list tells the size of its objects. The data
/// leads to the first of them, and each to the next.
fn each_thread<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    data: &[Range<u64>],
    classes: &Classes,
    mut each: impl FnMut(&[u64]) -> io::Result<()>,
) -> io::Result<()> {
    let mut links = VecDeque::new();
    let is_link = |&link: &u64| link != 0 && link % 64 == 0 && mappings.is_private_writable(link);
    let mut seen = HashSet::new();
    find::search(memory, data, |_, words| {
        for link in words.iter().copied().filter(is_link) {
            if links.len() < MOST_CACHES && seen.insert(link) {
                links.push_back(link);
            }
        }
        None::<()>
    })?;
    while let Some(link) = links.pop_front() {
        if !is_cache(memory, link, classes)? {
            continue;
        }
        let Some(words) = memory.words(link, CLASSES * LIST + TAIL)? else { continue };
        for next in words[CLASSES * LIST..].iter().copied().filter(is_link) {
            if seen.len() < 2 * MOST_CACHES && seen.insert(next) {
                links.push_back(next);
            }
        }
        each(&words[..CLASSES * LIST])?;
    }
    Ok(())
}

fn is_cache<M: ReadMemory>(memory: &M, link: u64, classes: &Classes) -> io::Result<bool> {
    let count = classes.sizes.len();
    // Most are none: the first lists tell.
    for lists in [count.min(8), count] {
        let Some(words) = memory.words(link, lists * LIST)? else { return Ok(false) };
        let sizes = words.chunks_exact(LIST).map(|list| u64::from(list[SIZE] as u32));
        if !sizes.zip(&classes.sizes).skip(1).all(|(size, class)| size == *class) {
            return Ok(false);
        }
    }
    Ok(true)
}
