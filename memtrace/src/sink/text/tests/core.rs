use insta::assert_snapshot;

use super::*;

#[test]
fn of_a_core_file_only_what_was_mapped_and_held_is_known() {
    let redis = ProcessReport {
        tgid: 99,
        comm: "redis-server".into(),
        of_core: true,
        memory: Memory { mapped: Some(90 * MIB), ..Memory::default() },
        allocators: vec![AllocatorReport {
            name: "jemalloc",
            evidence: "lower_bound",
            system: 80 * MIB,
            in_use: 20 * MIB,
            free: [("dirty", 10 * MIB), ("slab_regions", 50 * MIB)].into(),
            ..AllocatorReport::default()
        }],
        ..blank("unknown")
    };
    let mut report = report(vec![redis]);
    (report.window.emitted, report.window.probes) = (0, vec![]);
    assert_snapshot!(render(&report, PLAIN), @"
    redis-server (pid 99), from a core file: 90.0 MiB were mapped, and 60.0 MiB were free in its
        allocators; what was resident is not known

      memory in the core file
        mapped                 90.0 MiB
        resident                      –  anon –, file –, shmem –
        live                          –
        freed, not reclaimed          –  allocator –, lazy free –
        reserved                      –
        swapped                       –

      allocator   from kernel    in use        free  resident  trimmable
        jemalloc     80.0 MiB  20.0 MiB  ≥ 60.0 MiB         –          –
        free     slab regions 50.0 MiB, dirty 10.0 MiB


    from a core file, not traced; read on Linux 6.18.5 x86_64, pages of 4.0 KiB
    ");
    (report.processes[0].tgid, report.processes[0].allocators) = (0, vec![]);
    let text = render(&report, PLAIN);
    let sentence =
        "a process, from a core file: 90.0 MiB were mapped; what was resident is not known";
    assert_eq!(text.lines().next(), Some(sentence));
}
