//! The memory of a running process, read without stopping it and without changing what it has:
//! `process_vm_readv(2)`, `/proc/PID/mem` and `/proc/PID/pagemap`
//! (Documentation/admin-guide/mm/pagemap.rst).

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{
    procfs::{
        memory_dir,
        pagemap::{self, EXCLUSIVE, FILE_OR_SHARED, PRESENT, SWAPPED, each_entry},
    },
    progress::Counter,
};
use crate::{
    allocator::memory::{PageState, Piece, ReadMemory, pages_of},
    model::region_map::PAGE,
};

/// A running process.
#[derive(Debug)]
pub struct ProcessMemory {
    tgid: u32,
    pagemap: File,
    /// The address space as it was when it was opened: gone after an exec or an exit.
    space: File,
    counter: Counter,
}

/// Pieces of one call (`UIO_MAXIOV`, include/uapi/linux/uio.h).
const MOST_PIECES: usize = 1024;

impl ProcessMemory {
    /// Opens the memory of a process, and counts what is read of it.
    ///
    /// Errors: there is no such process, or no right to look at its memory (ptrace(2), access modes).
    pub fn open(tgid: u32, counter: &Counter) -> io::Result<Self> {
        let folder = memory_dir(tgid);
        let pagemap = File::open(format!("{folder}/pagemap"))?;
        let space = File::open(format!("{folder}/mem"))?;
        Ok(Self { tgid, pagemap, space, counter: counter.clone() })
    }

    /// Tells whether the process still has the address space that was opened, given an address in it.
    pub fn is_the_same(&self, address: u64) -> bool {
        // An address space without users reads as empty (fs/proc/base.c, mem_rw).
        self.space.read_at(&mut [0], address).is_ok_and(|len| len == 1)
    }
}

impl ReadMemory for ProcessMemory {
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        states.fill(PageState::Absent);
        let end = start.saturating_add(states.len() as u64 * PAGE);
        let mut states_left = states.iter_mut();
        let mut may_be_zero = false;
        each_entry(&self.pagemap, start..end, |_, entry| {
            let state = state_of(entry);
            // The zero page looks as if it were shared (fs/proc/task_mmu.c, pagemap_pte_range).
            may_be_zero |= state == PageState::Shared && entry & FILE_OR_SHARED == 0;
            states_left.next().into_iter().for_each(|place| *place = state);
            Ok(())
        })?;
        if may_be_zero {
            for page in pagemap::zero_pages(&self.pagemap, start..end)? {
                states[((page - start) / PAGE) as usize] = PageState::Zero;
            }
        }
        Ok(())
    }

    fn is_huge(&self, page: u64) -> bool {
        pagemap::is_huge(&self.pagemap, page)
    }

    /// Pages that others have too are read through `/proc/PID/mem`: `process_vm_readv` would give the
    /// process copies of its own of them, since it pins what it reads (mm/gup.c, `gup_must_unshare`, since
    /// 6.0), and a forked child would grow by what is read.
    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        let mut own: Vec<Piece<'_>> = Vec::with_capacity(pieces.len());
        for Piece { address, into } in pieces {
            self.counter.add(into.len());
            self.split(*address, into, &mut own)?;
        }
        for pieces in own.chunks_mut(MOST_PIECES) {
            self.read_own(pieces)?;
        }
        Ok(())
    }
}

fn state_of(entry: u64) -> PageState {
    match entry {
        _ if entry & PRESENT == 0 && entry & SWAPPED == 0 => PageState::Absent,
        _ if entry & PRESENT == 0 => PageState::Swapped,
        _ if entry & (EXCLUSIVE | FILE_OR_SHARED) == EXCLUSIVE => PageState::Own,
        _ => PageState::Shared,
    }
}

impl ProcessMemory {
    /// Fills in what is not there and what is shared, and adds the rest to `own`.
    fn split<'a>(
        &self,
        mut address: u64,
        mut into: &'a mut [u8],
        own: &mut Vec<Piece<'a>>,
    ) -> io::Result<()> {
        let pages = pages_of(address..address.saturating_add(into.len() as u64));
        // Runs of pages in one state, by how many there are.
        let mut runs: Vec<(PageState, u64)> = Vec::new();
        let mut end = pages.start;
        each_entry(&self.pagemap, pages, |_, entry| {
            let state = state_of(entry);
            match runs.last_mut() {
                Some((last, count)) if *last == state => *count += 1,
                _ => runs.push((state, 1)),
            }
            Ok(())
        })?;
        for (state, count) in runs {
            end += count * PAGE;
            let len = usize::try_from(end - address).map_or(into.len(), |len| len.min(into.len()));
            let (piece, rest) = into.split_at_mut(len);
            match state {
                PageState::Own => own.push(Piece { address, into: piece }),
                PageState::Shared => self.read_shared(address, piece),
                PageState::Absent | PageState::Swapped | PageState::Zero | PageState::Unknown => {
                    piece.fill(0);
                }
            }
            into = rest;
            address = end;
        }
        // Behind the end of address spaces.
        into.fill(0);
        Ok(())
    }

    fn read_shared(&self, address: u64, into: &mut [u8]) {
        let mut len = 0;
        while len < into.len() {
            match self.space.read_at(&mut into[len..], address + len as u64) {
                Ok(more) if more > 0 => len += more,
                _ => break,
            }
        }
        into[len..].fill(0);
    }

    /// Reads as many pieces as one call takes. It stops at the first page that is not there: that
    /// piece is read by pages, and the call goes on behind it.
    fn read_own(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        let mut next = 0;
        while next < pieces.len() {
            let mut done = self.call(&mut pieces[next..])?;
            while next < pieces.len() && done >= pieces[next].into.len() {
                done -= pieces[next].into.len();
                next += 1;
            }
            if next < pieces.len() {
                self.read_by_pages(&mut pieces[next])?;
                next += 1;
            }
        }
        Ok(())
    }

    fn read_by_pages(&self, piece: &mut Piece<'_>) -> io::Result<()> {
        let mut address = piece.address;
        let mut rest = &mut *piece.into;
        while !rest.is_empty() {
            let len = ((PAGE - address % PAGE) as usize).min(rest.len());
            let (into, behind) = rest.split_at_mut(len);
            if self.call(&mut [Piece { address, into: &mut *into }])? < len {
                into.fill(0);
            }
            address = address.saturating_add(len as u64);
            rest = behind;
        }
        Ok(())
    }

    /// Returns how many bytes were read, 0 when the first page of all is not there.
    fn call(&self, pieces: &mut [Piece<'_>]) -> io::Result<usize> {
        let remote: Vec<libc::iovec> = pieces
            .iter()
            .map(|piece| libc::iovec {
                iov_base: piece.address as *mut _,
                iov_len: piece.into.len(),
            })
            .collect();
        let local: Vec<libc::iovec> = pieces
            .iter_mut()
            .map(|piece| libc::iovec {
                iov_base: piece.into.as_mut_ptr().cast(),
                iov_len: piece.into.len(),
            })
            .collect();
        let count = pieces.len() as libc::c_ulong;
        let pid = self.tgid as libc::pid_t;
        // SAFETY: the local vectors are pieces that we may write to; the kernel checks the others.
        let read = unsafe {
            libc::process_vm_readv(pid, local.as_ptr(), count, remote.as_ptr(), count, 0)
        };
        match usize::try_from(read) {
            Ok(read) => Ok(read),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EFAULT) => Ok(0),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four pages of ours: written, never touched, unmapped, and only read.
    #[test]
    fn what_is_not_there_reads_as_zeros_and_the_rest_as_it_is() -> io::Result<()> {
        let page = PAGE as usize;
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, used inside its bounds, and unmapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), 4 * page, prot, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: as above.
        unsafe {
            libc::madvise(start, 4 * page, libc::MADV_NOHUGEPAGE);
            start.cast::<u8>().write_bytes(7, page);
            libc::munmap(start.add(2 * page), page);
            start.cast::<u8>().add(3 * page).read_volatile();
        }
        let memory = ProcessMemory::open(std::process::id(), &Counter::default())?;
        let start = start as u64;
        assert!(memory.is_the_same(start));
        let mut states = [PageState::Unknown; 4];
        memory.pages(start, &mut states)?;
        assert_eq!(states[..3], [PageState::Own, PageState::Absent, PageState::Absent]);
        assert_eq!(states[3], PageState::Zero);

        let mut bytes = vec![1; 4 * page];
        let mut again = [1; 16];
        memory.read(&mut [
            Piece { address: start, into: &mut bytes },
            Piece { address: start + 8, into: &mut again },
        ])?;
        assert!(bytes[..page].iter().all(|&byte| byte == 7));
        assert!(bytes[page..].iter().all(|&byte| byte == 0));
        assert_eq!(again, [7; 16]);
        assert_eq!(memory.words(start, 2)?, Some(vec![0x0707_0707_0707_0707; 2]));
        assert_eq!(memory.words(start + PAGE - 8, 2)?, None);
        // SAFETY: as above.
        unsafe { libc::munmap(start as *mut _, 4 * page) };
        Ok(())
    }

    /// A child that waits for its end, and never writes to what it shares with us.
    #[test]
    fn what_a_child_shares_stays_shared_when_it_is_read() -> io::Result<()> {
        let page = PAGE as usize;
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, used inside its bounds, and unmapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), 16 * page, prot, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: as above; the child calls nothing but pause.
        let child = unsafe {
            libc::madvise(start, 16 * page, libc::MADV_NOHUGEPAGE);
            start.cast::<u8>().write_bytes(7, 16 * page);
            match libc::fork() {
                0 => loop {
                    libc::pause();
                },
                child => child,
            }
        };
        let memory = ProcessMemory::open(child as u32, &Counter::default())?;
        let mut bytes = vec![0; 16 * page];
        memory.read(&mut [Piece { address: start as u64, into: &mut bytes }])?;
        let mut states = [PageState::Unknown; 16];
        memory.pages(start as u64, &mut states)?;
        // SAFETY: ends the child that was made above, and waits for it.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
            libc::munmap(start, 16 * page);
        }
        assert!(bytes.iter().all(|&byte| byte == 7));
        assert_eq!(states, [PageState::Shared; 16]);
        Ok(())
    }
}
