use insta::assert_snapshot;

use super::*;

#[test]
fn one_look_says_nothing_of_what_was_given_back() {
    let mut process = ProcessReport { tgid: 99, comm: "nginx".into(), ..blank("running") };
    process.memory.resident = Some(80 * MIB);
    let mut report = report(vec![process]);
    report.window.emitted = 0;
    report.window.probes.clear();
    assert_snapshot!(render(&report, PLAIN), @"
    nginx (pid 99) is running: 80.0 MiB are resident now

      memory now
        mapped                       –
        resident              80.0 MiB  anon –, file –, shmem –
        live                         –
        freed, not reclaimed         –  allocator –, lazy free –
        reserved                     –
        swapped                      –


    one look, not traced; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn an_incomplete_report_says_so_first_and_what_to_do() {
    let mut incomplete = report(vec![python()]);
    incomplete.window.complete = false;
    incomplete.window.dropped = 17;
    incomplete.window.resyncs = 2;
    incomplete.window.probes.push(probe("frames", "unsupported"));
    incomplete.window.probes.push(probe("faults", "skipped"));
    let text = render(&incomplete, PLAIN);
    let lines: Vec<&str> = text.lines().collect();
    assert_snapshot!(lines[..4].join("\n"), @"
    incomplete: 17 of 1251 records were lost because the ring buffer was full, so the figures may be too
        small; trace again with a larger --buffer
    not measured, for this kernel has no hook for it: frames (memtrace doctor says more)
    python3 (pid 4242) exited with 0: at exit 212.0 MiB had been given back: 180.0 MiB by munmap,
    ");
    assert_snapshot!(lines[lines.len() - 1], @"    x86_64, pages of 4.0 KiB");
}

#[test]
fn a_cut_trace_is_incomplete_without_blaming_the_buffer() {
    let mut incomplete = report(vec![]);
    incomplete.window.complete = false;
    assert_snapshot!(render(&incomplete, PLAIN), @"
    incomplete: part of what happened was not seen, so the figures may be too small
    no process was traced

    traced for 12.345 s, evidence frames; 1234 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn zero_everywhere_is_a_report_without_a_riddle() {
    let mut process = blank("exited");
    process.exit_code = Some(0);
    process.memory = Memory {
        mapped: Some(0),
        resident: Some(0),
        resident_by_kind: ResidentByKind { anon: Some(0), file: Some(0), shmem: Some(0) },
        live: Some(0),
        freed_not_reclaimed: FreedNotReclaimed {
            total: Some(0),
            allocator: Some(0),
            lazy_free: Some(0),
        },
        reserved: Some(0),
        swapped: Some(0),
        cold: None,
    };
    process.faults =
        Faults { minor: Some(0), major: Some(0), zeroed: Some(0), ..Faults::default() };
    process.balance =
        Balance { r#in: Some(0), out: Some(0), resident: Some(0), unexplained: Some(0) };
    let mut zero = report(vec![process]);
    zero.window = Window { start_ns: 0, end_ns: 0, emitted: 0, ..zero.window };
    assert_snapshot!(render(&zero, PLAIN), @"
    true (pid 1) exited with 0: at exit nothing had been given back; nothing was left

      memory at exit
        mapped                0 B
        resident              0 B  anon 0 B, file 0 B, shmem 0 B
        live                  0 B
        freed, not reclaimed  0 B  allocator 0 B, lazy free 0 B
        reserved              0 B
        swapped               0 B

      asked for  0 B in 0 calls; at most 0 B were mapped at once
      faults     0 minor, 0 major; frames zeroed 0
      balance    in 0 B = resident 0 B + out 0 B + unexplained 0 B

    traced for 0.000 s, evidence frames; 0 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn hostile_names_are_shown_and_do_nothing() {
    let mut process = blank("unknown");
    process.comm = "\x1b[2J\nroot".into();
    process.exe = Some("/tmp/\u{202e}gpj.exe\r".into());
    process.regions = vec![region(0x1000, MIB, "file", Some("a\u{2066}\tb\\\u{9b}31m"))];
    process.allocators = vec![AllocatorReport { version: Some("\x07".into()), ..glibc() }];
    process.unwalked = vec!["\x1b[1m".into()];
    let text = render(&report(vec![process]), PLAIN);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert_snapshot!(text, @r"
    \u{1b}[2J\nroot (pid 1), whose end was not seen: nothing had been given back; what is resident is
        not known
      \u{1b}[1m
      /tmp/\u{202e}gpj.exe\r

      memory when last seen
        mapped                –
        resident              –  anon –, file –, shmem –
        live                  –
        freed, not reclaimed  –  allocator –, lazy free –
        reserved              –
        swapped               –

      allocator      from kernel    in use      free  resident  trimmable
        glibc \u{7}    128.0 MiB  78.0 MiB  50.0 MiB  50.0 MiB   30.0 MiB
        free     bins 40.0 MiB, top 8.0 MiB, tcache 2.0 MiB
        late     2.0 MiB of what a trim gives are parts of huge pages: the kernel gets them when it
                 needs memory and splits those
        stays    after a trim: 10.0 MiB on pages that are partly in use, 8.0 MiB at the top of arenas
                 that a trim does not touch, 2.0 MiB on pages that only thread caches keep
        unknown  1.0 KiB in 1 place: they changed while they were read, or are damaged
        2 arenas          from kernel      free  resident  trimmable  threads
          0x7f1298000030     64.0 MiB  40.0 MiB  40.0 MiB   30.0 MiB        1
          0x7f12a0000c80     64.0 MiB  10.0 MiB  10.0 MiB        0 B        1

      asked for  0 B in 0 calls; at most 0 B were mapped at once
      faults     – minor, – major
      balance    in – = resident – + out – + unexplained –

      largest regions   mapped  resident  prot  kind  name
        0x1000         1.0 MiB         –  rw-p  file  a\u{2066}\tb\\\u{9b}31m

    traced for 12.345 s, evidence frames; 1234 records, none lost; Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
}

#[test]
fn many_processes_are_summed_up_before_the_four_largest() {
    let mut processes: Vec<ProcessReport> = (0..44)
        .map(|n| {
            let mut process = blank(if n % 2 == 0 { "running" } else { "exited" });
            process.tgid = 100 + n;
            process.comm = format!("cc{n}");
            process.exit_code = (n % 2 == 1).then_some(1);
            process.memory.resident = (n > 0).then_some(u64::from(n) * MIB);
            process
        })
        .collect();
    processes.push(python());
    let text = render(&report(processes), PLAIN);
    let summary: Vec<&str> = text.lines().take_while(|line| !line.contains("(pid")).collect();
    let short = [&summary[..4], &["  …"], &summary[38..]].concat();
    assert_snapshot!(short.join("\n"), @"
       pid  name     state     resident  given back  faults
      4242  python3  exited 0   4.1 MiB   212.0 MiB   54323
       143  cc43     exited 1  43.0 MiB         0 B       –
       142  cc42     running   42.0 MiB         0 B       –
      …
       107  cc7      exited 1   7.0 MiB         0 B       –
       106  cc6      running    6.0 MiB         0 B       –
       105  cc5      exited 1   5.0 MiB         0 B       –
      … and 5 more, 10.0 MiB

    45 processes; the 4 with the most memory, resident and given back:
    ");
    assert_eq!(text.matches("\n  memory").count(), 4, "{text}");
}

#[test]
fn colour_marks_lines_and_never_moves_a_column() {
    let mut incomplete = report(vec![python()]);
    incomplete.window.complete = false;
    let colored = render(&incomplete, Style { color: true, ..PLAIN });
    assert!(colored.starts_with("\x1b[1;31mincomplete"), "{colored:?}");
    let mut plain = colored;
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[1;31m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, render(&incomplete, PLAIN));
}
