//! Memory that holds plain data only: one anonymous mapping, seen as a slice of records.
//!
//! Everything in a region is made of atomics, so it may be shared between workers and (later) between processes,
//! and every bit pattern is a value. This is the one file of `nat` where `unsafe` is allowed: it maps the memory and
//! asks the processor to fetch cache lines ahead.

#![allow(unsafe_code, reason = "maps the session region and prefetches; see the module doc")]

use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// Types that may live in a [`Region`].
///
/// # Safety
/// Every bit pattern, all zeros among them, must be a value of the type; all its fields must allow shared mutation
/// (atomics); it must not need dropping.
pub(crate) unsafe trait Plain: Sync {}

/// A zeroed slice of `T` in a mapping of its own; pages that were never touched cost no memory.
pub(crate) struct Region<T: Plain> {
    base: NonNull<T>,
    count: usize,
    marker: PhantomData<T>,
}

// SAFETY: a region owns its mapping and gives out only `&[T]`; `T: Plain` is `Sync`.
unsafe impl<T: Plain> Send for Region<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Region<T> {}

impl<T: Plain> Region<T> {
    /// Maps room for `count` values, on huge pages where the kernel grants them.
    ///
    /// # Errors
    /// The kernel's, when the address space or memory cannot be had.
    pub(crate) fn map(count: usize) -> io::Result<Self> {
        let length = Self::length(count)?;
        // A fixed-capacity table must not be grown by hand, and an anonymous mapping is the only allocation that
        // costs nothing until it is touched.
        // SAFETY: no address is asked for, the length is not zero, the flags ask for private anonymous memory, and
        // the result is checked before use.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast::<T>())
            .expect("mmap without MAP_FIXED never answers address zero (mmap(2))");
        if length >= HUGE_PAGE {
            // Random look-ups in a large table miss the TLB on every step with 4 KiB pages. Advice may be refused;
            // then the pages stay small.
            // SAFETY: the range is the mapping made above.
            unsafe { libc::madvise(address, length, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { base, count, marker: PhantomData })
    }

    fn length(count: usize) -> io::Result<usize> {
        const { assert!(align_of::<T>() <= 4096 && !std::mem::needs_drop::<T>()) };
        count
            .max(1)
            .checked_mul(size_of::<T>())
            .filter(|length| *length <= isize::MAX as usize)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    /// Asks the processor to fetch the first cache line of the `index`-th value; out of range is ignored.
    #[inline]
    pub(crate) fn prefetch(&self, index: usize) {
        if index < self.count {
            // SAFETY: the address lies in the mapping, and a prefetch has no effect that a program can see.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.base.as_ptr().add(index).cast());
            }
        }
    }
}

impl<T: Plain> Deref for Region<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `count` values of `T`, aligned to a page, zeroed or written as `T`, shared
        // mutation is `T`'s own affair (`Plain`), and it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

impl<T: Plain> Drop for Region<T> {
    fn drop(&mut self) {
        let length = Self::length(self.count)
            .expect("the same length was computed when the region was mapped");
        // SAFETY: the mapping was made by `map` with this length, and no reference to it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), length) };
    }
}

const HUGE_PAGE: usize = 2 << 20;

// SAFETY: made of atomics without padding; asserted in its own file.
unsafe impl Plain for crate::nat::table::record::Record {}
// SAFETY: made of atomics without padding; asserted in its own file.
unsafe impl Plain for crate::nat::table::index::Bucket {}
