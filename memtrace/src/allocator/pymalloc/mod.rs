//! CPython's pymalloc (obmalloc), 3.6 to 3.13, found without symbols. It gives an arena back as soon
//! as no pool of it is in use (but the last one that has free pools), and has no other purge. Arenas
//! of sub-interpreters that have a lock of their own (3.12) are not seen.
//!
//! Reading order: `layout` (its books), `find` (the array of arenas), `walk` (over pools and blocks).

mod find;
mod layout;
#[cfg(test)]
mod tests;
mod walk;

use super::{
    mappings::Mappings,
    memory::ReadMemory,
    pages::Pages,
    walked::{Trim, Unwalked, Walked},
};

/// Its name in every output.
pub const NAME: &str = "pymalloc";

/// Walks the arenas of a process, given its executable.
///
/// Errors: it is no Python, or one that does not use pymalloc; it cannot be read.
pub fn walk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    exe: Option<&str>,
) -> Result<Walked, Unwalked> {
    // Programs that have Python linked into them load its modules.
    let embeds = mappings.iter().any(|mapping| file_name(mapping.path()).contains(".cpython-"));
    let data = mappings
        .data_of(|mapping| is_python(mapping.path()) || embeds && Some(mapping.path()) == exe);
    let mut pages = Pages::new(memory);
    let Some(arenas) = find::arenas(memory, &mut pages, mappings, &data)? else {
        return Err(Unwalked::NotUsed(NAME));
    };
    let found = walk::walk(memory, mappings, &arenas)?;
    let system = arenas.all.len() as u64 * arenas.shape.arena;
    let walk::Found { blocks, pools, unknown, pages: on } = found;
    // Whole free pages come back with the last used pool of their arena only.
    let trim = Trim {
        partly_used: on.partly_used,
        held: on.free.saturating_sub(on.partly_used),
        ..Trim::default()
    };
    let settings = [
        ("arena_size", arenas.shape.arena),
        ("pool_size", arenas.shape.pool),
        ("arenas", arenas.all.len() as u64),
    ];
    let mut walked = Walked {
        name: NAME,
        version: mappings.iter().find_map(|mapping| version(mapping.path())),
        is_lower_bound: arenas.is_cut,
        system,
        free: [("blocks", blocks), ("pools", pools)].into(),
        unknown,
        free_resident: Some(on.free),
        trim: Some(trim),
        settings: settings.into(),
        ..Walked::default()
    };
    walked.add_regions(&on);
    walked.settle();
    Ok(walked)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Tells whether a mapped file is Python: its library, or the program that has it in itself.
fn is_python(path: &str) -> bool {
    let name = file_name(path);
    name.starts_with("libpython") || name.starts_with("python")
}

/// Returns the version that the name of Python, or of a module of it, tells.
fn version(path: &str) -> Option<String> {
    let name = file_name(path);
    if let Some((_, tag)) = name.split_once(".cpython-") {
        let digits = &tag[..tag.find(|c: char| !c.is_ascii_digit())?];
        return Some(format!("{}.{}", digits.get(..1)?, digits.get(1..)?));
    }
    let rest = name.strip_prefix("lib").unwrap_or(name).strip_prefix("python")?;
    let (major, minor) = rest.split_once('.')?;
    let end = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    let is_number = major.len() == 1 && major.as_bytes()[0].is_ascii_digit() && end > 0;
    is_number.then(|| format!("{major}.{}", &minor[..end]))
}
