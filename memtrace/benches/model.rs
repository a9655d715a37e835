//! What one event costs from the bytes of the ring buffer to the model, by the number of regions.
//!
//! Not what the probes or the outputs cost: `cargo xtask bench` measures tracing as a whole.

use std::{
    hint::black_box,
    ops::Range,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use memtrace::model::Model;
use memtrace_common::{Call, Event, Header, Kind, Path, Region, Syscall, TaskSeed, decode};
use zerocopy::{FromZeros as _, IntoBytes as _};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("model");
    group.throughput(Throughput::Elements(1));
    for regions in [10, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let mut traced = Traced::new(regions);
        group.bench_function(BenchmarkId::new("in_order", regions), |bencher| {
            bencher.iter_custom(|rounds| traced.time_per_event(rounds, Arrival::InOrder));
        });
    }
    let mut traced = Traced::new(1_000);
    group.bench_function(BenchmarkId::new("calls_late", 1_000), |bencher| {
        bencher.iter_custom(|rounds| traced.time_per_event(rounds, Arrival::CallsLate));
    });
    group.finish();
    criterion.final_summary();
}

/// In which order the records reach the ring buffer.
#[derive(Clone, Copy)]
enum Arrival {
    /// As the kernel made the changes.
    InOrder,
    /// Each call returns after so many later changes as another thread may make meanwhile.
    CallsLate,
}

const PAGE: u64 = 4096;
/// Pages of a region; so many are free after it.
const REGION: u64 = 16;
/// Where the lowest region starts.
const LOWEST: u64 = 0x10_0000_0000;
const MM: u64 = 0xffff_8880_1234_5600;
const TGID: u32 = 42;
const READ: u64 = 1;
const READ_WRITE: u64 = 3;
/// `VM_MAYREAD`, `VM_MAYWRITE` and `VM_MAYEXEC` (include/linux/mm.h).
const MAY: u64 = 0x70;
/// Records of a round.
const ROUND: u32 = 9;
/// So many rounds are written before they are timed: their bytes fit the cache, as those that the
/// probes have just written do.
const BATCH: u64 = 256;
/// Records by which a late call is late.
const DELAY: usize = 5;

/// A process with one address space, and the records of what it does next.
struct Traced {
    model: Model,
    regions: u64,
    /// Write sections so far.
    seq: u64,
    random: u64,
    bytes: Vec<u8>,
    records: Vec<Range<usize>>,
}

impl Traced {
    fn new(regions: u64) -> Self {
        let mut model = Model::default();
        let mut seed = TaskSeed::new_zeroed();
        seed.header = header(Kind::TaskSeed, size_of::<TaskSeed>());
        model.apply(&Event::TaskSeed(seed));
        let seq = 1;
        let snapshot: Vec<Region> =
            (0..regions).map(|nth| region(Kind::MapRegion, &nth_region(nth), seq)).collect();
        model.replace_regions(MM, &snapshot, seq);
        Self { model, regions, seq, random: 1, bytes: Vec::new(), records: Vec::new() }
    }

    /// Applies so many rounds and returns the time that one event of them took.
    fn time_per_event(&mut self, rounds: u64, arrival: Arrival) -> Duration {
        let mut elapsed = Duration::ZERO;
        let mut left = rounds;
        while left > 0 {
            let batch = left.min(BATCH);
            self.write(batch, arrival);
            let began = Instant::now();
            for record in &self.records {
                let event = decode(&self.bytes[record.clone()]).expect("the record is whole");
                black_box(self.model.apply(&event));
            }
            elapsed += began.elapsed();
            left -= batch;
        }
        let space = self.model.processes()[0].space().expect("it has an address space");
        assert_eq!(self.model.space(space).regions.count() as u64, self.regions);
        elapsed / ROUND
    }

    /// Writes the records of so many rounds.
    fn write(&mut self, rounds: u64, arrival: Arrival) {
        self.bytes.clear();
        self.records.clear();
        for _ in 0..rounds {
            self.write_round();
        }
        match arrival {
            Arrival::InOrder => {}
            Arrival::CallsLate => {
                let is_call = |at: &Range<usize>| at.len() == size_of::<Call>();
                let mut arrivals: Vec<(usize, Range<usize>)> = self
                    .records
                    .drain(..)
                    .enumerate()
                    .map(|(nth, at)| (nth + if is_call(&at) { DELAY } else { 0 }, at))
                    .collect();
                arrivals.sort_by_key(|&(arrives, _)| arrives);
                self.records.extend(arrivals.into_iter().map(|(_, at)| at));
            }
        }
    }

    /// Writes what maps a page, protects the middle of a region, undoes it, and unmaps the page,
    /// at random places.
    fn write_round(&mut self) {
        let near = nth_region(self.random_below(self.regions));
        let page = near.end + PAGE..near.end + 2 * PAGE;
        let whole = nth_region(self.random_below(self.regions));
        let middle = whole.start + 4 * PAGE..whole.start + 8 * PAGE;

        self.seq += 1;
        self.write_region(Kind::MapRegion, &page);
        self.write_call(Syscall::Mmap, &page, READ_WRITE, page.start);
        // The kernel splits off what is below and above and stores it, then it changes the flags
        // of what is left (mm/mprotect.c, 6.18).
        self.seq += 1;
        self.write_region(Kind::MapRegion, &(whole.start..middle.start));
        self.write_region(Kind::MapRegion, &(middle.end..whole.end));
        self.write_call(Syscall::Mprotect, &middle, READ, 0);
        // And it merges the three.
        self.seq += 1;
        self.write_region(Kind::MapRegion, &whole);
        self.write_call(Syscall::Mprotect, &middle, READ_WRITE, 0);
        self.seq += 1;
        self.write_region(Kind::UnmapRegion, &page);
        self.write_call(Syscall::Munmap, &page, 0, 0);
    }

    fn write_region(&mut self, kind: Kind, range: &Range<u64>) {
        let record = region(kind, range, self.seq);
        self.write_bytes(record.as_bytes());
    }

    fn write_call(&mut self, syscall: Syscall, range: &Range<u64>, protection: u64, ret: u64) {
        let (first, flags) = match syscall {
            // `MAP_PRIVATE` and `MAP_ANONYMOUS` (include/uapi/asm-generic/mman-common.h).
            Syscall::Mmap => (0, 0x22),
            _ => (range.start, 0),
        };
        let record = Call {
            header: header(Kind::Call, size_of::<Call>()),
            seq: self.seq,
            args: [first, range.end - range.start, protection, flags, 0, 0],
            ret: ret as i64,
            syscall: syscall as u16,
            path: Path::NONE,
            ..Call::default()
        };
        self.write_bytes(record.as_bytes());
    }

    fn write_bytes(&mut self, record: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        self.records.push(start..self.bytes.len());
    }

    /// Draws a number by xorshift64.
    fn random_below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }
}

fn header(kind: Kind, len: usize) -> Header {
    let (kind, len) = (kind as u16, len as u16);
    Header { time_ns: 1, mm: MM, tgid: TGID, tid: TGID, cpu: 0, sequence: 0, kind, len }
}

fn nth_region(nth: u64) -> Range<u64> {
    let start = LOWEST + nth * 2 * REGION * PAGE;
    start..start + REGION * PAGE
}

fn region(kind: Kind, range: &Range<u64>, seq: u64) -> Region {
    Region {
        header: header(kind, size_of::<Region>()),
        seq,
        start: range.start,
        end: range.end,
        pgoff: range.start / PAGE,
        flags: MAY | READ_WRITE,
        ..Region::default()
    }
}
