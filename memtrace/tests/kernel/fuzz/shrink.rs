//! Cuts a sequence that fails down to one that still does (delta debugging).

/// Tries are slow: each starts a victim and attaches.
const MOST_TRIES: usize = 150;

/// Returns a part of `all` for which `fails` holds, small as it can be made in a bounded time.
pub(super) fn shrink<T: Copy>(all: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = all;
    let mut tries = 0;
    let mut size = kept.len() / 2;
    while size > 0 && tries < MOST_TRIES {
        let mut at = 0;
        while at < kept.len() && tries < MOST_TRIES {
            let end = (at + size).min(kept.len());
            let without: Vec<T> = [&kept[..at], &kept[end..]].concat();
            tries += 1;
            if !without.is_empty() && fails(&without) {
                kept = without;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    kept
}
