//! What the model tells: names, lines of the live stream, figures that are known and that are not.

use super::*;

#[test]
fn a_file_is_told_by_its_number_and_the_tag_of_its_name() {
    let file = |name: &[u8], name_tag| {
        let mut bytes = [0; 64];
        bytes[..name.len()].copy_from_slice(name);
        Event::FileName(FileName {
            header: header(1, MM),
            inode: 7,
            dev: 1,
            name_tag,
            reserved: 0,
            name: bytes,
        })
    };
    let mut mapped = region(MM, 0..4, 1);
    (mapped.inode, mapped.dev, mapped.name_tag) = (7, 1, 5);
    mapped.backing = memtrace_common::Backing::File as u16;
    let mut nameless = mapped;
    (nameless.inode, nameless.start, nameless.end) = (8, 4 * PAGE, 5 * PAGE);
    let model = model(&[
        file(b"before it was renamed", 5),
        file(b"libc.so.6", 5),
        file(b"another", 6),
        Event::MapRegion(mapped),
        Event::MapRegion(nameless),
        exec(1, MM, "sh"),
    ]);
    let names: Vec<Option<String>> =
        processes(&model)[0].regions.iter().map(|region| region.name.clone()).collect();
    assert_eq!(names, [Some("libc.so.6".to_owned()), None]);
}

#[test]
fn a_name_that_fills_its_field_or_is_not_utf_8_is_text() {
    assert_eq!(text(&[b'a'; 64]), "a".repeat(64));
    assert_eq!(text(b"\xffa\0b"), "\u{fffd}a");
    assert_eq!(text(b"\0"), "");
}

#[test]
fn a_fault_says_what_it_wanted() {
    for (error_code, expected) in [(4, "read"), (6, "write"), (0x14, "exec"), (0x16, "write")] {
        let header = header(1, MM);
        let fault = Fault { header, address: 5, error_code, from_kernel: 1, ..Fault::default() };
        let change = Model::default().apply(&Event::Fault(fault)).expect("a line");
        let What::Fault { address: 5, access, from_kernel: true } = change.what else {
            panic!("{change:?}")
        };
        assert_eq!(access, expected, "error code {error_code:#x}");
    }
}

#[test]
fn a_call_shows_its_result_where_that_is_an_address_or_an_error() {
    let shown = |syscall: Syscall, ret: i64| {
        let header = header(1, MM);
        let call =
            Call { header, syscall: syscall as u16, path: Path::NONE, ret, ..Call::default() };
        let change = Model::default().apply(&Event::Call(call)).expect("a line");
        let What::Call { ret, path: None, .. } = change.what else { panic!("{change:?}") };
        ret
    };
    assert_eq!(shown(Syscall::Mmap, 0x5000), 0x5000);
    assert_eq!(shown(Syscall::Munmap, 0), 0);
    assert_eq!(shown(Syscall::Munmap, -22), -22);
    assert_eq!(shown(Syscall::ProcessMadvise, 4096), 0);
}

#[test]
fn a_call_carries_its_figures_in_bytes() {
    let call = Call {
        header: header(1, MM),
        args: [4 * PAGE, 2 * PAGE, 0, 0, 0, 0],
        zapped_pages: 2,
        freed_frames: 1,
        syscall: Syscall::Munmap as u16,
        path: Path::Munmap as u16,
        ..Call::default()
    };
    let change = Model::default().apply(&Event::Call(call)).expect("a line");
    let expected = What::Call {
        call: "munmap",
        start: 4 * PAGE,
        requested: 2 * PAGE,
        detail: String::new(),
        ret: 0,
        path: Some("munmap"),
        zapped: Some(2 * PAGE),
        freed: Some(PAGE),
        duration_ns: None,
    };
    assert_eq!(change.what, expected);
}

#[test]
fn beyond_so_many_processes_an_exited_one_keeps_its_figures_without_its_regions() {
    let mut model = Model::default();
    for tgid in 1..=KEPT_REGION_MAPS as u32 + 1 {
        let mm = u64::from(tgid);
        let run = TeardownRun { header: header(tgid, mm), first: 0, pages: 4, frames: 4 };
        let counters = PathCounters { zapped_pages: [1; 4], ..PathCounters::default() };
        let mut ledger = Ledger::default();
        ledger.paths[Path::Exit.index()] = counters;
        let end = Event::MmEnd(MmEnd { header: header(tgid, mm), ledger });
        for event in [
            map(mm, 0..4, 1),
            exec(tgid, mm, "sh"),
            Event::TeardownRun(run),
            exit(tgid, mm, 0),
            end,
        ] {
            model.apply(&event);
        }
    }
    assert_eq!(regions(&model, KEPT_REGION_MAPS - 1).len(), 1);
    assert_eq!(regions(&model, KEPT_REGION_MAPS).len(), 0);
    let last = model.space(space_of(&model, KEPT_REGION_MAPS));
    assert!(last.torn_down.is_empty());
    assert_eq!(last.mapped(), 4 * PAGE);
    let report = processes(&model).pop().expect("many");
    assert_eq!(report.memory.resident, Some(3 * PAGE));
}

#[test]
fn the_backing_of_a_region_survives_unknown_values() {
    let unknown = Region { backing: 99, ..region(MM, 0..1, 1) };
    let model = model(&[Event::MapRegion(unknown), exec(1, MM, "sh")]);
    let space = model.space(space_of(&model, 0));
    let vma = space.regions.find(0).expect("mapped");
    assert_eq!(vma.backing, Backing::Anon { index: 0 });
}

#[test]
fn where_nothing_is_counted_exec_is_told_from_exit_and_figures_are_unknown() {
    let mut model = Model::new(Evidence::Args);
    model.apply(&exec(1, MM, "sh"));
    model.replace_regions(MM, &[region(MM, 0..4, 0)], 0);
    assert_eq!(model.stale(), [], "it was just read");
    for event in [mm_end(MM, Path::Exec, 0), exec(1, OTHER_MM, "/bin/cat")] {
        model.apply(&event);
    }
    assert_eq!(model.stale(), [(1, OTHER_MM)], "nobody saw it being built");
    assert_eq!(model.resyncs(), 0, "nothing was lost");
    model.replace_regions(OTHER_MM, &[region(OTHER_MM, 5..9, 0)], 0);
    let change = model.apply(&mm_end(OTHER_MM, Path::Exit, 0)).expect("a line");
    assert_eq!(change.what, What::MmEnd { zapped: None, freed: None });
    let [process] = processes(&model).try_into().expect("one");
    let calls = |path: &str| process.reclaimed.by_path[path].calls;
    assert_eq!([calls("exec"), calls("exit")], [1, 1]);
    assert_eq!(process.reclaimed.by_path["exec"].zapped, None);
    assert_eq!((process.reclaimed.total, process.balance.r#in), (None, None));
    assert_eq!((process.memory.mapped, process.memory.resident), (Some(4 * PAGE), None));
    assert_eq!(model.reclaimed_bytes(), None);
}

#[test]
fn a_size_that_nobody_knows_is_not_0() {
    let mut model = Model::new(Evidence::Args);
    model.apply(&exec(1, MM, "sh"));
    let attach = Call { header: header(1, MM), ret: 0x1000, ..Call::default() };
    let attach = Call { syscall: Syscall::Shmat as u16, path: Path::NONE, ..attach };
    model.apply(&Event::Call(attach));
    let args = [0x1000, 0, 0, 0, 0, 0];
    let detach = Call { syscall: Syscall::Shmdt as u16, args, ret: 0, ..attach };
    model.apply(&Event::Call(detach));
    model.apply(&mm_end(MM, Path::Exit, 0));
    let [process] = processes(&model).try_into().expect("one");
    assert_eq!((process.mapped.calls, process.mapped.requested), (1, None));
    assert_eq!(process.mapped.peak, None);
    let by_path = &process.reclaimed.by_path;
    for path in ["munmap", "exit"] {
        assert_eq!((by_path[path].calls, by_path[path].requested), (1, None), "{path}");
    }
}
