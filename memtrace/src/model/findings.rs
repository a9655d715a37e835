//! What is worth doing about what a process holds: findings over its report, each with the figures it
//! rests on and a knob to try. Not a diagnosis: what the program wants is not known.

use super::report::{AllocatorReport, Finding, ProcessReport, Remains};

/// Below so many bytes nothing is worth a word, nor below a tenth of what is resident.
const NOTABLE: u64 = 8 << 20;
const NOTABLE_PART: u64 = 10;
/// Arenas beside the main one that make many.
const MANY_ARENAS: usize = 4;
/// Four times where the threshold of mappings starts (`DEFAULT_MMAP_THRESHOLD_MIN`, malloc/malloc.c).
const DRIFTED: u64 = 512 << 10;
/// Memory from which on it is worth a word that nothing is free, and the part that counts as nothing.
const LARGE: u64 = 64 << 20;
const NOTHING_PART: u64 = 20;

/// Returns what is worth a word, the most bytes first.
pub fn findings(process: &ProcessReport) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let resident = process.memory.resident.unwrap_or(0);
    let is_notable = |bytes: u64| bytes >= NOTABLE && bytes >= resident / NOTABLE_PART;
    for allocator in &process.allocators {
        let of_allocator = [
            idle_arenas(allocator),
            pinned_top(allocator),
            threshold_drift(allocator),
            thread_caches(allocator),
            idle_dirty_pages(allocator),
            partly_used_pages(allocator),
            shared_since_fork(allocator),
        ];
        found.extend(of_allocator.into_iter().flatten());
    }
    found.extend(lazy_free(process));
    found.retain(|finding| is_notable(finding.bytes));
    found.extend(live(process, resident));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.bytes));
    found
}

fn setting(allocator: &AllocatorReport, name: &str) -> Option<u64> {
    allocator.settings.get(name).copied()
}

fn remains(allocator: &AllocatorReport) -> Remains {
    allocator.remains.unwrap_or_default()
}

/// Arenas of threads hold free memory: there are more of them than are used.
fn idle_arenas(allocator: &AllocatorReport) -> Option<Finding> {
    let others = allocator.arenas.get(1..).filter(|_| allocator.name == "glibc")?;
    let bytes = sum(others.iter().filter_map(|arena| arena.free_resident));
    (others.len() >= MANY_ARENAS).then(|| Finding {
        id: "idle_arenas",
        bytes,
        summary: "the arenas of threads hold free memory, each for itself".to_owned(),
        evidence: format!("{} arenas beside the main one", others.len()),
        advice: "MALLOC_ARENA_MAX=2 in the environment makes threads share arenas; malloc_trim(0) \
                 gives back what is free now, except at their tops"
            .to_owned(),
    })
}

/// Something lives above free memory, so that `free` alone gives nothing back.
fn pinned_top(allocator: &AllocatorReport) -> Option<Finding> {
    let main = allocator.arenas.first().filter(|_| allocator.name == "glibc")?;
    let top = allocator.free.get("top").copied().unwrap_or(0);
    let bytes = main.trimmable?.saturating_sub(top);
    Some(Finding {
        id: "pinned_top",
        bytes,
        summary:
            "something in use lies above free memory of the heap, so that free() gives none of \
                  it back"
                .to_owned(),
        evidence: format!("{} trimmable below the top of the main arena", mib(bytes)),
        advice: "malloc_trim(0) after the peak, or every now and then, gives it back; short-lived \
                 large objects made after long-lived ones cause it"
            .to_owned(),
    })
}

/// After large frees the thresholds went up, and large chunks come from the heap since then.
fn threshold_drift(allocator: &AllocatorReport) -> Option<Finding> {
    let threshold = setting(allocator, "mmap_threshold")?;
    let is_dynamic = setting(allocator, "mmap_threshold_is_dynamic")? == 1;
    (is_dynamic && threshold >= DRIFTED).then(|| Finding {
        id: "threshold_drift",
        bytes: allocator.trimmable.unwrap_or(0),
        summary: "the size from which chunks are mappings of their own has gone up, so that large \
                  ones lie in the heap and stay there when they are freed"
            .to_owned(),
        evidence: format!(
            "mmap_threshold {} and trim_threshold {}, at first both 128.0 KiB",
            kib(threshold),
            setting(allocator, "trim_threshold").map_or_else(|| "unknown".to_owned(), kib),
        ),
        advice:
            "MALLOC_MMAP_THRESHOLD_=131072 (and MALLOC_TRIM_THRESHOLD_=131072) in the environment \
                 keeps them where they start"
                .to_owned(),
    })
}

fn thread_caches(allocator: &AllocatorReport) -> Option<Finding> {
    (allocator.name == "glibc").then(|| Finding {
        id: "thread_caches",
        bytes: remains(allocator).cached,
        summary: "pages are kept by nothing but the caches of threads".to_owned(),
        evidence: format!(
            "{} in thread caches",
            mib(allocator.free.get("tcache").copied().unwrap_or(0))
        ),
        advice: "GLIBC_TUNABLES=glibc.malloc.tcache_count=0 in the environment does without them; \
                 they go when their threads end"
            .to_owned(),
    })
}

/// jemalloc gives back by a clock that only its own calls look at.
fn idle_dirty_pages(allocator: &AllocatorReport) -> Option<Finding> {
    let is_idle = setting(allocator, "background_thread") == Some(0);
    (allocator.name == "jemalloc" && is_idle).then(|| Finding {
        id: "idle_dirty_pages",
        bytes: allocator.trimmable.unwrap_or(0),
        summary:
            "free pages wait to be given back, but only calls of jemalloc look at the time, and \
                  an idle program makes none"
                .to_owned(),
        evidence: "background_thread is off".to_owned(),
        advice: "MALLOC_CONF=background_thread:true, or dirty_decay_ms:0, or mallctl \
                 arena.<i>.purge when the program goes idle"
            .to_owned(),
    })
}

/// What lies beside used bytes on its pages comes back to nobody.
fn partly_used_pages(allocator: &AllocatorReport) -> Option<Finding> {
    let bytes = remains(allocator).partly_used;
    let free = allocator.free_resident.unwrap_or(0);
    (bytes >= free / 2).then(|| Finding {
        id: "partly_used_pages",
        bytes,
        summary:
            "free memory lies between what is in use, on the same pages: no trim and no purge \
                  gives it back"
                .to_owned(),
        evidence: format!("{} of {} free", mib(bytes), mib(free)),
        advice:
            "it is used again before more is asked for; what helps is to keep objects that live \
                 long apart from others, or to move them (redis: activedefrag yes), or a restart"
                .to_owned(),
    })
}

fn shared_since_fork(allocator: &AllocatorReport) -> Option<Finding> {
    Some(Finding {
        id: "shared_since_fork",
        bytes: remains(allocator).shared,
        summary:
            "free memory is shared with another process since a fork: a trim lowers the RSS, but \
                  frees no memory"
                .to_owned(),
        evidence: format!("{} of the trimmable pages", mib(remains(allocator).shared)),
        advice: "trim in the parent before it forks".to_owned(),
    })
}

/// `MADV_FREE`d memory counts as resident until the kernel wants it.
fn lazy_free(process: &ProcessReport) -> Option<Finding> {
    let bytes = process.memory.freed_not_reclaimed.lazy_free?;
    Some(Finding {
        id: "lazy_free",
        bytes,
        summary:
            "the kernel may take this memory at any time, and has not needed it: it counts as \
                  resident, and as used in a container, though nobody uses it"
                .to_owned(),
        evidence: format!("{} given up by MADV_FREE (LazyFree in smaps)", mib(bytes)),
        advice: "jemalloc: MALLOC_CONF=muzzy_decay_ms:0; Go: GODEBUG=madvdontneed=1; or leave it: \
                 under pressure it goes first"
            .to_owned(),
    })
}

/// Nothing of a large process is free: the program holds it.
fn live(process: &ProcessReport, resident: u64) -> Option<Finding> {
    let anon = process.memory.resident_by_kind.anon?;
    let free = process.memory.freed_not_reclaimed.total?;
    let is_seen = process.allocators.iter().all(|allocator| allocator.evidence == "walked");
    let is_known = is_seen && process.unwalked.is_empty() && !process.allocators.is_empty();
    (is_known && anon >= LARGE && free < resident / NOTHING_PART).then(|| Finding {
        id: "live",
        bytes: anon.saturating_sub(free),
        summary:
            "hardly anything is free: the program itself holds its memory (a cache, a pool of its \
                  own, or a leak), and no allocator setting changes that"
                .to_owned(),
        evidence: format!("{} of {} are free", mib(free), mib(anon)),
        advice: "look at what the program keeps: its cache settings, or a heap profiler".to_owned(),
    })
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
