//! Memory that holds plain data only: one mapping, which is a slice of records.
//!
//! A region is anonymous and ends with the process, or it is the content of a file and outlives the
//! process. Everything in a region is made of atomics, so workers and processes may share the
//! region, and every bit pattern is a value. This is the one file of `nat` where `unsafe` is
//! allowed: the file maps the memory, asks the processor to fetch cache lines ahead, and says which
//! types are plain.

#![allow(unsafe_code, reason = "maps the session region and prefetches; see the module doc")]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

#[cfg(test)]
use crate::nat::table::atomic;
use crate::nat::tracking::tcp_window::TcpFields;

/// Types that may live in a [`Region`]. [`plain!`] implements it.
///
/// # Safety
/// Every bit pattern, all zeros among them, must be a value of the type; all fields must allow
/// shared mutation (atomics); the type must not need dropping.
pub unsafe trait Plain: Sync {
    /// Offsets of the fields of a struct, in bytes.
    const OFFSETS: &'static [usize] = &[];
}

// SAFETY: an atomic integer takes every bit pattern, is shared freely, and needs no dropping.
unsafe impl Plain for AtomicU8 {}
// SAFETY: as above.
unsafe impl Plain for AtomicU16 {}
// SAFETY: as above.
unsafe impl Plain for AtomicU32 {}
// SAFETY: as above.
unsafe impl Plain for AtomicU64 {}
// SAFETY: the atomics of tests wrap those of the standard library and nothing else.
#[cfg(test)]
unsafe impl Plain for atomic::AtomicU8 {}
// SAFETY: as above.
#[cfg(test)]
unsafe impl Plain for atomic::AtomicU16 {}
// SAFETY: as above.
#[cfg(test)]
unsafe impl Plain for atomic::AtomicU32 {}
// SAFETY: as above.
#[cfg(test)]
unsafe impl Plain for atomic::AtomicU64 {}
// SAFETY: an array has the bit patterns of its elements, side by side.
unsafe impl<T: Plain, const COUNT: usize> Plain for [T; COUNT] {}
// SAFETY: made of atomics and of arrays of atomics alone.
unsafe impl Plain for TcpFields {}

/// Declares a struct that may live in a [`Region`]. Every field must be [`Plain`], which the
/// compiler checks, so the file that declares the struct needs no unsafe code of its own.
macro_rules! plain {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_attribute:meta])* $field_visibility:vis $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $name {
            $($(#[$field_attribute])* $field_visibility $field: $type,)*
        }

        const _: () = {
            const fn is_plain<T: $crate::nat::table::region::Plain>() {}
            $(is_plain::<$type>();)*
        };

        // SAFETY: every field is `Plain`, as the constant above proves, and padding is never read.
        #[allow(unsafe_code, reason = "the region's own macro; see its module doc")]
        unsafe impl $crate::nat::table::region::Plain for $name {
            const OFFSETS: &'static [usize] = &[$(std::mem::offset_of!($name, $field)),*];
        }
    };
}
pub(crate) use plain;

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
    /// Maps memory for `count` values, all zeros at first, on huge pages where the kernel grants
    /// them.
    ///
    /// # Errors
    /// The kernel's, when the address space or memory cannot be had.
    pub(crate) fn map(count: usize) -> io::Result<Self> {
        // The table has a fixed capacity, and an anonymous mapping is the only allocation that
        // costs nothing until a page is touched.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Self::map_with(count, flags, -1)
    }

    /// Maps the first `count` values of a file, shared with every process that maps the file.
    ///
    /// The file must keep its space: a page that cannot be allocated ends the process (SIGBUS).
    ///
    /// # Errors
    /// The file is shorter, or the kernel's error.
    pub(crate) fn map_file(file: &File, count: usize) -> io::Result<Self> {
        if file.metadata()?.len() < Self::length(count)? as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::map_with(count, libc::MAP_SHARED, file.as_raw_fd())
    }

    /// Maps the memory of a file if there is one, otherwise anonymous memory.
    ///
    /// # Errors
    /// As [`Self::map`] and [`Self::map_file`].
    pub(crate) fn map_in(file: Option<&File>, count: usize) -> io::Result<Self> {
        file.map_or_else(|| Self::map(count), |file| Self::map_file(file, count))
    }

    /// `descriptor`: -1 for anonymous memory.
    fn map_with(count: usize, flags: i32, descriptor: i32) -> io::Result<Self> {
        let length = Self::length(count)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is asked for, the length is not zero, the descriptor is open or the
        // memory anonymous, and the result is checked before use. Other processes may change a
        // shared mapping at any time: `T: Plain` allows it.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, descriptor, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast::<T>())
            .expect("mmap without MAP_FIXED never returns address zero (mmap(2))");
        if length >= HUGE_PAGE {
            // With 4 KiB pages, random lookups in a large table miss the TLB on every step. If the
            // kernel refuses the advice, the pages stay small.
            // SAFETY: the range is the mapping made above.
            unsafe { libc::madvise(address, length, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { base, count, marker: PhantomData })
    }

    /// Bytes of `count` values.
    ///
    /// # Errors
    /// More bytes than an address space has.
    pub(crate) fn bytes(count: usize) -> io::Result<u64> {
        Self::length(count).map(|length| length as u64)
    }

    fn length(count: usize) -> io::Result<usize> {
        const { assert!(align_of::<T>() <= 4096 && !std::mem::needs_drop::<T>()) };
        count
            .max(1)
            .checked_mul(size_of::<T>())
            .filter(|length| *length <= isize::MAX as usize)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    /// Asks the processor to fetch the first cache line of the `index`-th value; out of range is
    /// ignored.
    #[inline]
    pub(crate) fn prefetch(&self, index: usize) {
        if index < self.count {
            // SAFETY: the address lies in the mapping, and a prefetch has no effect that a program
            // can see.
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
        // SAFETY: the mapping holds `count` values of `T`, aligned to a page; every bit pattern is
        // a `T`, `T` allows shared mutation (`Plain`), and the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

impl<T: Plain> Drop for Region<T> {
    fn drop(&mut self) {
        let length = Self::length(self.count)
            .expect("the same length was computed when the region was mapped");
        // SAFETY: the mapping was made by `map_with` with this length, and no reference to it
        // outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), length) };
    }
}

const HUGE_PAGE: usize = 2 << 20;
