//! Events of the running kernel, through the ring buffer.

use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use memtrace_common::{Event, decode};
use tokio::io::{Interest, unix::AsyncFd};

use super::sequence::Sequence;

/// The ring buffer's reading end.
pub struct Live {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Records that were taken.
    received: u64,
    /// Numbers of the records, by CPU.
    sequence: Sequence,
    /// Records of kinds that this build does not know.
    unknown: u64,
}

impl Live {
    /// Wraps the ring buffer. Needs tokio's runtime.
    pub fn new(ring: RingBuf<MapData>) -> Result<Self> {
        debug_assert!(ring.as_raw_fd() >= 0);
        // SAFETY: the ring buffer keeps its map's descriptor open for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .context("cannot wait for events")?;
        Ok(Self { ring, received: 0, sequence: Sequence::default(), unknown: 0 })
    }

    /// Waits until the probes say that events are there. They do so every 64 KiB only: look on a
    /// timer as well.
    pub async fn readable(&mut self) -> Result<()> {
        self.ring.readable_mut().await.context("cannot wait for events")?.clear_ready();
        Ok(())
    }

    /// Takes every event that is there. `raw` gets the bytes of each record first.
    pub fn drain(&mut self, mut raw: impl FnMut(&[u8]), mut each: impl FnMut(&Event)) {
        let ring = self.ring.get_mut();
        while let Some(record) = ring.next() {
            self.received += 1;
            raw(&record);
            match decode(&record) {
                Ok(event) => {
                    self.sequence.see(event.header());
                    each(&event);
                }
                Err(_) => self.unknown += 1,
            }
        }
    }

    /// Returns the number of records that were taken.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of records that are missing, by their numbers.
    pub fn missing(&self) -> u64 {
        self.sequence.missing()
    }

    /// Returns the number of records that could not be read.
    pub const fn unknown(&self) -> u64 {
        self.unknown
    }
}
