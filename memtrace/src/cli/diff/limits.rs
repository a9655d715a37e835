//! `--fail-above`: by how much a class of memory may grow.

use crate::{
    cli::parse_size,
    model::diff::{Class, Limit},
};

/// Reads `SIZE` (of resident memory) or `CLASS=SIZE`.
pub(super) fn limit(text: &str) -> Result<Limit, String> {
    let (class, bytes) = match text.split_once('=') {
        None => (Class::Resident, text),
        Some((name, size)) => (class(name)?, size),
    };
    Ok(Limit { class, allowed: parse_size(bytes)? })
}

fn class(name: &str) -> Result<Class, String> {
    let plain = name.replace('-', "_");
    let found = Class::ALL.into_iter().find(|class| class.name() == plain);
    found.ok_or_else(|| {
        let names: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
        format!("{name:?} is no class of memory: {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_alone_is_one_of_resident_memory() {
        for (text, class, allowed) in [
            ("10M", Class::Resident, 10 << 20),
            ("0", Class::Resident, 0),
            ("freed_not_reclaimed=512K", Class::FreedNotReclaimed, 512 << 10),
            ("freed-not-reclaimed=1", Class::FreedNotReclaimed, 1),
            ("live=2g", Class::Live, 2 << 30),
        ] {
            assert_eq!(limit(text), Ok(Limit { class, allowed }), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_and_no_class_is_refused() {
        for text in [
            "",
            "=",
            "live=",
            "live",
            "10%",
            "+1M",
            "-1",
            "1.5M",
            "é",
            "=1M",
            "free=1M",
            "99999999999G",
        ] {
            assert!(limit(text).is_err(), "{text}");
        }
        assert!(limit("free=1M").is_err_and(|why| why.contains("freed_not_reclaimed, allocator")));
    }
}
