use insta::assert_snapshot;

use super::*;
use crate::model::report::{Remanence, Reuse};

#[test]
fn an_exited_process_begins_with_what_it_gave_back_and_what_was_left() {
    assert_snapshot!(render(&report(vec![python()]), PLAIN), @"
    python3 (pid 4242) exited with 0: at exit 212.0 MiB had been given back: 180.0 MiB by munmap,
        30.0 MiB by heap trim (brk), 1.0 MiB by MADV_DONTNEED, 1.0 MiB by other paths; 4.1 MiB were
        left, of which 3.0 MiB went back at exit
      kept elsewhere: 2.1 MiB left this process without being freed: 2.1 MiB in the page cache
      /usr/bin/python3.13

      memory at exit
        mapped                24.0 MiB
        resident               4.1 MiB  anon 3.0 MiB, file 1.1 MiB, shmem 0 B
        live                         –
        freed, not reclaimed         –  allocator –, lazy free 0 B
        reserved              19.9 MiB
        swapped                    0 B

      left by            calls  requested     zapped      freed      late  kept elsewhere
        munmap              12  200.0 MiB  181.0 MiB  180.0 MiB  96.0 KiB         1.0 MiB
        heap trim (brk)      3   30.0 MiB   30.0 MiB   30.0 MiB       0 B             0 B
        MADV_DONTNEED        1    2.0 MiB    1.0 MiB    1.0 MiB       0 B             0 B
        exit                 1   24.0 MiB    4.1 MiB    3.0 MiB       0 B         1.1 MiB
        other                1    1.0 MiB    1.0 MiB    1.0 MiB       0 B             0 B
        all                 18  257.0 MiB  217.1 MiB  215.0 MiB  96.0 KiB         2.1 MiB

      asked for  236.0 MiB in 34 calls; at most 224.0 MiB were mapped at once
      late       half of the frames within 1.0 µs, 99 % within 4.2 ms, the last after 12.0 s
      faults     54321 minor, 2 major; frames zeroed 50515 (50003 anon, 512 huge), copied 17
      balance    in 217.0 MiB = resident 0 B + out 217.0 MiB + unexplained 0 B

      largest regions      mapped   resident  prot  kind  name
        0x7f12a0000000   16.0 MiB    8.0 MiB  rw-p  anon
        0x7f1290000000    2.0 MiB          –  rw-p  file  libpython3.13.so.1.0
        0x555555750000  512.0 KiB  256.0 KiB  rw-p  heap  [heap]

    traced for 12.345 s, evidence frames; 1234 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn a_narrow_terminal_gets_the_answer_in_three_lines_and_no_line_too_long() {
    let mut python = python();
    python.regions[1].name = Some("/a/very/long/path/to/the/library/libpython3.13.so.1.0".into());
    let text = render(&report(vec![python]), Style { color: false, width: 80 });
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_snapshot!(text, @"
    python3 (pid 4242) exited with 0: at exit 212.0 MiB had been given back:
        180.0 MiB by munmap, 30.0 MiB by heap trim (brk), 1.0 MiB by MADV_DONTNEED,
        1.0 MiB by other paths; 4.1 MiB were left, of which 3.0 MiB went back at
        exit
      kept elsewhere: 2.1 MiB left this process without being freed: 2.1 MiB in the
        page cache
      /usr/bin/python3.13

      memory at exit
        mapped                24.0 MiB
        resident               4.1 MiB  anon 3.0 MiB, file 1.1 MiB, shmem 0 B
        live                         –
        freed, not reclaimed         –  allocator –, lazy free 0 B
        reserved              19.9 MiB
        swapped                    0 B

      left by            calls  requested     zapped      freed      late     kept
        munmap              12  200.0 MiB  181.0 MiB  180.0 MiB  96.0 KiB  1.0 MiB
        heap trim (brk)      3   30.0 MiB   30.0 MiB   30.0 MiB       0 B      0 B
        MADV_DONTNEED        1    2.0 MiB    1.0 MiB    1.0 MiB       0 B      0 B
        exit                 1   24.0 MiB    4.1 MiB    3.0 MiB       0 B  1.1 MiB
        other                1    1.0 MiB    1.0 MiB    1.0 MiB       0 B      0 B
        all                 18  257.0 MiB  217.1 MiB  215.0 MiB  96.0 KiB  2.1 MiB

      asked for  236.0 MiB in 34 calls; at most 224.0 MiB were mapped at once
      late       half of the frames within 1.0 µs, 99 % within 4.2 ms, the last
               after 12.0 s
      faults     54321 minor, 2 major; frames zeroed 50515 (50003 anon, 512 huge),
               copied 17
      balance    in 217.0 MiB = resident 0 B + out 217.0 MiB + unexplained 0 B

      largest regions      mapped   resident  prot  kind  name
        0x7f12a0000000   16.0 MiB    8.0 MiB  rw-p  anon
        0x7f1290000000    2.0 MiB          –  rw-p  file  …rary/libpython3.13.so.1.0
        0x555555750000  512.0 KiB  256.0 KiB  rw-p  heap  [heap]

    traced for 12.345 s, evidence frames; 1234 records, none lost; Linux 6.18.5
        x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn what_became_of_given_up_memory_is_told_when_it_was_measured() {
    let mut process = python();
    process.reclaimed.by_path.insert("free", left_by(2, 64 * MIB, 0, 0, 0));
    process.madv_free =
        MadvFree { now: Some(3 * MIB), used_again: Some(MIB), taken: Some(60 * MIB) };
    process.swap = Swap { out: Some(8 * MIB), r#in: Some(MIB) };
    process.remanence = Some(Remanence {
        freed: 100,
        still_free: 60,
        zeroed_for_others: 0,
        to_itself: Reuse {
            frames: 30,
            p50_ns: 1_023,
            p99_ns: 4_194_303,
            max_ns: 5_000_000,
            histogram: vec![],
        },
        to_others: Reuse::default(),
    });
    let text = render(&report(vec![process]), PLAIN);
    let start = text.find("  faults").expect("a line about faults");
    let end = text.find("  balance").expect("a line about the balance");
    assert_snapshot!(&text[start..end], @"
    faults     54321 minor, 2 major; frames zeroed 50515 (50003 anon, 512 huge), copied 17
    MADV_FREE  3.0 MiB there for the taking, 1.0 MiB in use again, 60.0 MiB taken
    remanence  of 100 freed frames it got 30 again (half within 1.0 µs, 99 % within 4.2 ms, the last
             after 5.0 ms); others got 0, 0 of them zeroed; 60 nobody got yet
    swap       8.0 MiB out, 1.0 MiB back in
    ");
}

#[test]
fn what_is_unknown_of_a_running_process_is_a_dash_and_never_0() {
    let nginx = ProcessReport { tgid: 99, comm: "nginx".into(), ..blank("running") };
    assert_snapshot!(render(&report(vec![nginx]), PLAIN), @"
    nginx (pid 99) is running: since tracing began nothing has been given back; what is resident now is
        not known

      memory now
        mapped                –
        resident              –  anon –, file –, shmem –
        live                  –
        freed, not reclaimed  –  allocator –, lazy free –
        reserved              –
        swapped               –

      asked for  0 B in 0 calls; at most 0 B were mapped at once
      faults     – minor, – major
      balance    in – = resident – + out – + unexplained –

    traced for 12.345 s, evidence frames; 1234 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn a_running_process_is_told_in_the_present_with_what_its_allocator_keeps() {
    let mut process = ProcessReport {
        tgid: 99,
        comm: "nginx".into(),
        allocators: vec![glibc()],
        ..blank("running")
    };
    process.memory.resident = Some(80 * MIB);
    process.memory.freed_not_reclaimed.total = Some(50 * MIB);
    process.reclaimed.total = Some(8 * MIB);
    process.reclaimed.by_path.insert("free", left_by(4, 16 * MIB, 0, 0, 0));
    process.reclaimed.by_path.insert("pressure", left_by(2, 0, 8 * MIB, 8 * MIB, 0));
    process.regions = vec![RegionReport {
        live: Some(30 * MIB),
        free_resident: Some(50 * MIB),
        ..region(0x5555_0000_0000, 160 * MIB, "heap", Some("[heap]"))
    }];
    assert_snapshot!(render(&report(vec![process]), PLAIN), @"
    nginx (pid 99) is running: since tracing began 8.0 MiB have been given back by pressure; 80.0 MiB
        are resident now, 50.0 MiB of them freed by the program but not reclaimed; a trim would give
        30.0 MiB back

      memory now
        mapped                       –
        resident              80.0 MiB  anon –, file –, shmem –
        live                         –
        freed, not reclaimed  50.0 MiB  allocator –, lazy free –
        reserved                     –
        swapped                      –

      allocator     from kernel    in use      free  resident  trimmable
        glibc 2.41    128.0 MiB  78.0 MiB  50.0 MiB  50.0 MiB   30.0 MiB
        free     bins 40.0 MiB, top 8.0 MiB, tcache 2.0 MiB
        late     2.0 MiB of what a trim gives are parts of huge pages: the kernel gets them when it
                 needs memory and splits those
        stays    after a trim: 10.0 MiB on pages that are partly in use, 8.0 MiB at the top of arenas
                 that a trim does not touch, 2.0 MiB on pages that only thread caches keep
        unknown  1.0 KiB in 1 place: they changed while they were read, or are damaged
        2 arenas          from kernel      free  resident  trimmable  threads
          0x7f1298000030     64.0 MiB  40.0 MiB  40.0 MiB   30.0 MiB        1
          0x7f12a0000c80     64.0 MiB  10.0 MiB  10.0 MiB        0 B        1

      left by      calls  requested   zapped    freed  late  kept elsewhere
        MADV_FREE      4   16.0 MiB      0 B      0 B   0 B             0 B
        pressure       2        0 B  8.0 MiB  8.0 MiB   0 B             0 B
        all            6   16.0 MiB  8.0 MiB  8.0 MiB   0 B             0 B

      asked for  0 B in 0 calls; at most 0 B were mapped at once
      faults     – minor, – major
      balance    in – = resident – + out – + unexplained –

      largest regions                  mapped  resident      live      free  prot  kind  name
        0x555500000000  ██▓▓▓·····  160.0 MiB  80.0 MiB  30.0 MiB  50.0 MiB  rw-p  heap  [heap]
        █ live  ▓ free  ▒ lazy free  · reserved

    traced for 12.345 s, evidence frames; 1234 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn a_large_unexplained_rest_is_pointed_out_and_a_small_one_is_not() {
    let first_lines = |unexplained| {
        let mut process = blank("exited");
        process.balance = Balance {
            r#in: Some(100 << 20),
            out: Some(90 << 20),
            resident: Some(0),
            unexplained: Some(unexplained),
        };
        let text = render(&report(vec![process]), PLAIN);
        text.lines().filter(|line| line.contains("unexplained")).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(first_lines(10 << 20), @"
    unexplained: 10.0 MiB came in, but neither left nor is there
    balance    in 100.0 MiB = resident 0 B + out 90.0 MiB + unexplained 10.0 MiB
    ");
    assert_snapshot!(first_lines(-10 << 20), @"
    unexplained: 10.0 MiB left or are there, but were not seen coming in
    balance    in 100.0 MiB = resident 0 B + out 90.0 MiB + unexplained -10.0 MiB
    ");
    assert_snapshot!(first_lines(1 << 20), @"  balance    in 100.0 MiB = resident 0 B + out 90.0 MiB + unexplained 1.0 MiB");
}

#[test]
fn the_sentence_says_what_became_of_the_rest_at_exit() {
    let sentence = |exit: Option<PathReport>, resident, code| {
        let mut process = blank("exited");
        process.exit_code = code;
        process.memory.resident = resident;
        process.reclaimed.by_path = exit.map(|exit| ("exit", exit)).into_iter().collect();
        process.reclaimed.total = exit_freed(&process);
        render(&report(vec![process]), Style { color: false, width: 0 })
            .lines()
            .next()
            .expect("a report has lines")
            .to_owned()
    };
    let exit = |freed| Some(left_by(1, 0, 4 * MIB, freed, 0));
    let lines = [
        sentence(exit(4 * MIB), Some(4 * MIB), Some(0)),
        sentence(exit(MIB), Some(4 * MIB), Some(1)),
        sentence(exit(0), Some(4 * MIB), Some(137)),
        sentence(exit(6 * MIB), Some(4 * MIB), None),
        sentence(exit(4 * MIB), None, Some(0)),
        sentence(None, Some(4 * MIB), Some(0)),
        sentence(None, None, Some(0)),
    ];
    assert_snapshot!(lines.join("\n"), @"
    true (pid 1) exited with 0: at exit nothing had been given back; 4.0 MiB were left and went back at exit
    true (pid 1) exited with 1: at exit nothing had been given back; 4.0 MiB were left, of which 1.0 MiB went back at exit
    true (pid 1) exited with 137 (SIGKILL): at exit nothing had been given back; 4.0 MiB were left, none of which went back at exit
    true (pid 1) exited: at exit nothing had been given back; 4.0 MiB were left and 6.0 MiB went back at exit
    true (pid 1) exited with 0: at exit nothing had been given back; 4.0 MiB were left and went back at exit
    true (pid 1) exited with 0: at exit nothing had been given back; 4.0 MiB were left, whose teardown was not seen
    true (pid 1) exited with 0: at exit nothing had been given back; what was left is not known
    ");
}

fn exit_freed(process: &ProcessReport) -> Option<u64> {
    process.reclaimed.by_path.get("exit").map_or(Some(0), |exit| exit.freed)
}

#[test]
fn only_the_largest_regions_are_listed() {
    let mut process = blank("running");
    process.regions =
        (0..15).map(|n| region(0x1000_0000 * (n + 1), (16 - n) * MIB, "anon", None)).collect();
    let text = render(&report(vec![process]), PLAIN);
    let start = text.find("  largest regions").expect("there are regions");
    assert_snapshot!(&text[start..], @"
      largest regions    mapped  resident  prot  kind  name
        0x10000000     16.0 MiB   8.0 MiB  rw-p  anon
        0x20000000     15.0 MiB   7.5 MiB  rw-p  anon
        0x30000000     14.0 MiB   7.0 MiB  rw-p  anon
        0x40000000     13.0 MiB   6.5 MiB  rw-p  anon
        0x50000000     12.0 MiB   6.0 MiB  rw-p  anon
        0x60000000     11.0 MiB   5.5 MiB  rw-p  anon
        0x70000000     10.0 MiB   5.0 MiB  rw-p  anon
        0x80000000      9.0 MiB   4.5 MiB  rw-p  anon
        0x90000000      8.0 MiB   4.0 MiB  rw-p  anon
        0xa0000000      7.0 MiB   3.5 MiB  rw-p  anon
        0xb0000000      6.0 MiB   3.0 MiB  rw-p  anon
        0xc0000000      5.0 MiB   2.5 MiB  rw-p  anon
      … and 3 more, 9.0 MiB

    traced for 12.345 s, evidence frames; 1234 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn no_width_is_too_small() {
    let report = report(vec![python()]);
    for width in 1..=100 {
        let text = render(&report, Style { color: false, width });
        assert!(text.contains("4.1 MiB"), "width {width}: {text}");
    }
}

/// What a level of evidence makes of the typical case.
fn at(evidence: Evidence) -> String {
    let mut process = python();
    let figures = process.reclaimed.by_path.values_mut();
    for path in figures {
        path.zapped = path.zapped.filter(|_| evidence >= Evidence::Rss);
        [path.freed, path.late, path.kept_elsewhere] = [None; 3];
        path.kept_by_reason = None;
    }
    (process.reclaimed.total, process.reclaimed.late_delay) = (None, None);
    process.regions.clear();
    let Faults { minor, major, .. } = process.faults;
    process.faults = Faults { minor, major, ..Faults::default() };
    if evidence < Evidence::Rss {
        (process.memory, process.balance) = (Memory::default(), Balance::default());
    }
    let mut report = report(vec![process]);
    report.window.evidence = evidence;
    render(&report, PLAIN)
}

#[test]
fn where_frames_are_not_counted_the_answer_is_what_was_detached() {
    assert_snapshot!(at(Evidence::Rss), @"
    python3 (pid 4242) exited with 0: at exit 213.0 MiB had been detached: 181.0 MiB by munmap, 30.0 MiB
        by heap trim (brk), 1.0 MiB by MADV_DONTNEED, 1.0 MiB by other paths (how much of it was freed
        was not counted); 4.1 MiB were left
      /usr/bin/python3.13

      memory at exit
        mapped                24.0 MiB
        resident               4.1 MiB  anon 3.0 MiB, file 1.1 MiB, shmem 0 B
        live                         –
        freed, not reclaimed         –  allocator –, lazy free 0 B
        reserved              19.9 MiB
        swapped                    0 B

      left by            calls  requested     zapped
        munmap              12  200.0 MiB  181.0 MiB
        heap trim (brk)      3   30.0 MiB   30.0 MiB
        MADV_DONTNEED        1    2.0 MiB    1.0 MiB
        exit                 1   24.0 MiB    4.1 MiB
        other                1    1.0 MiB    1.0 MiB
        all                 18  257.0 MiB  217.1 MiB

      asked for  236.0 MiB in 34 calls; at most 224.0 MiB were mapped at once
      faults     54321 minor, 2 major
      balance    in 217.0 MiB = resident 0 B + out 217.0 MiB + unexplained 0 B

    traced for 12.345 s, evidence rss; 1234 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn where_nothing_is_counted_the_answer_is_what_was_asked() {
    assert_snapshot!(at(Evidence::Args), @"
    python3 (pid 4242) exited with 0: at exit 233.0 MiB had been given up: 200.0 MiB by munmap, 30.0 MiB
        by heap trim (brk), 2.0 MiB by MADV_DONTNEED, 1.0 MiB by other paths (address space: how much of
        it was memory was not counted); what was left is not known
      /usr/bin/python3.13

      left by            calls  requested
        munmap              12  200.0 MiB
        heap trim (brk)      3   30.0 MiB
        MADV_DONTNEED        1    2.0 MiB
        exit                 1   24.0 MiB
        other                1    1.0 MiB
        all                 18  257.0 MiB

      asked for  236.0 MiB in 34 calls; at most 224.0 MiB were mapped at once
      faults     54321 minor, 2 major

    traced for 12.345 s, evidence args; 1234 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}
