use proptest::prelude::*;

use super::{
    elf::{READ, WRITE},
    made_up::{BUILD_ID as ID, DATA, EXE, HEAP, HEAP_PAGES, LIBC, MadeUp, STACK, VDSO, library},
    *,
};
use crate::{
    allocator::{
        memory::{PageState, Piece, ReadMemory as _},
        walked::Walked,
    },
    model::region_map::{PAGE, flag},
    source::procfs::Mapping,
};

const TEXT: &[u8] = b"GNU C Library stable release version 2.36.";

fn read(bytes: &[u8]) -> Result<Core<&[u8]>, CoreError> {
    Core::read(bytes)
}

fn glibc(core: &Core<&[u8]>) -> Walked {
    let found = core.walk(|_| Some(library(ID, TEXT)));
    let [walked] = found.walked.try_into().expect("glibc alone is there");
    walked
}

#[test]
fn a_core_tells_whose_it_is() {
    let bytes = MadeUp::program().bytes();
    let core = read(&bytes).expect("it is a core");
    assert_eq!((core.tgid, core.comm.as_deref()), (Some(42), Some("program")));
    assert_eq!(core.exe.as_deref(), Some("/usr/bin/program"));
    assert_eq!(core.lacks, Lacks::default());
}

#[test]
fn regions_have_their_names_and_the_heap_too() {
    let bytes = MadeUp::program().bytes();
    let core = read(&bytes).expect("it is a core");
    let of = |m: &Mapping| (m.start, m.end, m.flags, m.offset, m.inode, m.name.clone());
    let (read, write, exec) = (flag::READ, flag::READ | flag::WRITE, flag::READ | flag::EXEC);
    let (exe, libc) = ("/usr/bin/program", "/usr/lib/libc.so.6");
    let expected = [
        (EXE, EXE + 2 * PAGE, exec, 0, 1, exe),
        (HEAP, HEAP + HEAP_PAGES * PAGE, write, 0, 0, "[heap]"),
        (LIBC, LIBC + 2 * PAGE, read, 0, 2, libc),
        (LIBC + 2 * PAGE, DATA, read, 2 * PAGE, 2, libc),
        (DATA, DATA + PAGE, write, 4 * PAGE, 2, libc),
        (DATA + PAGE, DATA + 2 * PAGE, write, 0, 0, ""),
        (VDSO, VDSO + PAGE, exec, 0, 0, "[vdso]"),
        (STACK, STACK + 2 * PAGE, write, 0, 0, "[stack]"),
    ];
    let expected = expected.map(|(a, b, c, d, e, name)| (a, b, c, d, e, name.to_owned()));
    assert_eq!(core.mappings.iter().map(of).collect::<Vec<_>>(), expected);
}

#[test]
fn the_heap_is_walked_and_what_was_resident_is_not_known() {
    let bytes = MadeUp::program().bytes();
    let core = read(&bytes).expect("it is a core");
    let walked = glibc(&core);
    let top = HEAP_PAGES * PAGE - 0x12b0;
    let free = [("tcache", 0), ("fastbins", 0), ("bins", 0x1000), ("top", top)];
    assert_eq!(walked.free, free.into());
    assert_eq!((walked.system, walked.unknown), (HEAP_PAGES * PAGE, 0));
    assert_eq!((walked.free_resident, walked.trim), (None, None));
    assert!(walked.free_by_region.is_empty() && !walked.is_lower_bound);
    let arena = &walked.arenas[0];
    assert_eq!((arena.free, arena.free_resident, arena.trimmable), (0x1000 + top, None, None));
}

#[test]
fn a_library_counts_when_it_is_the_very_same() {
    let version = |core: &MadeUp, file: Option<Vec<u8>>| {
        let bytes = core.bytes();
        let found = read(&bytes).expect("it is a core").walk(|path| {
            assert_eq!(path, "/usr/lib/libc.so.6");
            file.clone()
        });
        found.walked[0].version.clone()
    };
    let mut core = MadeUp::program();
    assert_eq!(version(&core, Some(library(ID, TEXT))).as_deref(), Some("2.36"));
    assert_eq!(version(&core, Some(library(b"a later one", TEXT))), None);
    assert_eq!(version(&core, Some(TEXT.to_vec())), None);
    assert_eq!(version(&core, None), None);
    // Without its head in the core, its path must do, unless it was deleted.
    core.segments[2].3.clear();
    assert_eq!(version(&core, Some(TEXT.to_vec())).as_deref(), Some("2.36"));
    for (.., name) in &mut core.files[1..] {
        *name = "/usr/lib/libc.so.6 (deleted)";
    }
    assert_eq!(version(&core, Some(TEXT.to_vec())), None);
}

#[test]
fn what_is_not_in_the_file_is_absent_and_reads_as_zeros() {
    let page = PAGE as usize;
    let core = MadeUp {
        segments: vec![
            (0x1000, 3 * PAGE, READ | WRITE, vec![7; page + 10]),
            (0x4000, PAGE, READ | WRITE, vec![8; page]),
            (0x6000, PAGE, READ | WRITE, Vec::new()),
        ],
        ..MadeUp::default()
    };
    let bytes = core.bytes();
    let memory = read(&bytes).expect("it is a core").memory;
    let mut states = [PageState::Own; 7];
    memory.pages(0, &mut states).expect("it is there");
    let [absent, unknown] = [PageState::Absent, PageState::Unknown];
    assert_eq!(states, [absent, unknown, unknown, absent, unknown, absent, absent]);
    let mut all = vec![1; 7 * page];
    let mut piece = [1; 2];
    memory
        .read(&mut [
            Piece { address: 0, into: &mut all },
            Piece { address: 0x2009, into: &mut piece },
        ])
        .expect("it is there");
    let expected = [
        vec![0; page],
        vec![7; page + 10],
        vec![0; 2 * page - 10],
        vec![8; page],
        vec![0; 2 * page],
    ];
    assert!(all == expected.concat());
    assert_eq!(piece, [7, 0]);
    assert_eq!(memory.word(0x2000).expect("it is there"), Some(0x0707_0707_0707_0707));
    assert_eq!(memory.word(0x6000).expect("it is there"), None);
    assert_eq!(memory.words(u64::MAX - 7, 1).expect("nothing is there"), None);
}

#[test]
fn a_core_that_is_cut_short_says_so_and_tells_what_is_there() {
    let whole = MadeUp::program().bytes();
    let len = whole.len();
    // The stack comes last, libc's data before it and the vdso.
    let core = read(&whole[..len - PAGE as usize]).expect("most is there");
    assert_eq!(core.lacks, Lacks { bytes: PAGE, ..Lacks::default() });
    let walked = glibc(&core);
    assert!(walked.is_lower_bound && walked.free["bins"] == 0x1000, "{walked:?}");
    for cut in (0..len).step_by(97).chain([len - 1]) {
        match read(&whole[..cut]) {
            Ok(core) => {
                assert!(core.lacks != Lacks::default(), "{cut}");
                core.walk(|_| None);
            }
            Err(CoreError::Empty) => assert_eq!(cut, 0),
            Err(error) => assert!(matches!(error, CoreError::CutShort), "{cut}: {error}"),
        }
    }
}

#[test]
fn more_segments_than_a_header_can_count_are_counted_elsewhere() {
    let core = MadeUp { has_many: true, ..MadeUp::program() };
    let bytes = core.bytes();
    assert_eq!(read(&bytes).expect("it is a core").mappings.iter().count(), 8);
}

#[test]
fn what_is_no_core_of_ours_is_told_apart() {
    let core = MadeUp::program().bytes();
    let error = |at: usize, bytes: &[u8]| {
        let mut core = core.clone();
        core[at..at + bytes.len()].copy_from_slice(bytes);
        read(&core).expect_err("it is none").to_string()
    };
    assert_eq!(error(0, b"#!/b"), "it is not an ELF file");
    assert_eq!(error(0, b"\x28\xb5\x2f\xfd"), "it is compressed");
    assert_eq!(error(4, &[1]), "it is the core file of a 32-bit program");
    assert_eq!(error(16, &[2]), "it is an ELF file, but no core file");
    assert_eq!(error(18, &[183]), "it is the core file of another architecture than x86-64");
    assert_eq!(error(54, &[1]), "its headers are damaged");
    assert_eq!(error(56, &[1]), "it holds no memory of a process");
    assert_eq!(read(&[]).expect_err("it is none").to_string(), "it is empty");
}

#[test]
fn a_core_without_notes_or_data_says_so() {
    let mut core = MadeUp::program();
    core.files.clear();
    let bytes = core.bytes();
    assert!(read(&bytes).expect("it is a core").lacks.files);
    let mut core = MadeUp::program();
    for (.., flags, bytes) in &mut core.segments[1..4] {
        if *flags & WRITE != 0 {
            bytes.clear();
        }
    }
    let bytes = core.bytes();
    let core = read(&bytes).expect("it is a core");
    assert_eq!(core.lacks, Lacks { data: true, ..Lacks::default() });
}

proptest! {
    #[test]
    fn any_bytes_give_a_core_or_a_clean_error(
        damage in prop::collection::vec((0_usize..1600, any::<u8>()), 0..12),
        words in prop::collection::vec((0..18 * PAGE as usize / 8, 0_u64..0x3000), 0..20),
    ) {
        let mut bytes = MadeUp::program().bytes();
        let memory = bytes.len() - 22 * PAGE as usize;
        for (word, value) in words {
            bytes[memory + word * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        if let Ok(core) = read(&bytes)
            // The walks take time for what is mapped: terabytes of it would be no test.
            && core.mappings.iter().map(|m| m.end - m.start).sum::<u64>() < 1 << 28
        {
            for walked in core.walk(|_| None).walked {
                prop_assert!(walked.free_bytes() <= walked.system);
                prop_assert_eq!(walked.free_resident, None);
            }
        }
    }
}
