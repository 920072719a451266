//! What `std` would bring: the allocator, and what a panic does.
//!
//! The allocator takes the rest of the memory that the instance starts with, then grows it.
//! The standard one begins by growing the memory. For an instance that lives for one
//! request that is a call into the host, and pages that the host has to protect and reset
//! again. Invariant: memory grows only when what lies behind the data is used up.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::{alloc::Layout, arch::wasm32, ptr};

use talc::{
    base::{Talc, binning::Binning},
    cell::TalcSyncCell,
    source::Source,
    wasm::WasmBinning,
};

/// Bytes of a Wasm page.
const PAGE_BYTES: usize = 65_536;
/// What an allocation may need beside its size: the allocator's own bookkeeping, in bytes.
const OVERHEAD_BYTES: usize = 1_024;

#[global_allocator]
static HEAP: TalcSyncCell<Memory, WasmBinning> = TalcSyncCell::new_wasm(Memory { started: false });

/// Where the allocator gets memory.
#[derive(Debug)]
struct Memory {
    started: bool,
}

unsafe extern "C" {
    /// Set by the linker: the end of stack and data.
    static __heap_base: u8;
}

// SAFETY: neither allocates through Rust nor touches the allocator but to give it memory.
unsafe impl Source for Memory {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if !talc.source.started {
            talc.source.started = true;
            let base = &raw const __heap_base as *mut u8;
            let bytes = wasm32::memory_size(0) * PAGE_BYTES - base as usize;
            // SAFETY: from the linker's heap base to the end of memory nothing else lives.
            if unsafe { talc.claim(base, bytes) }.is_some() && bytes > OVERHEAD_BYTES {
                return Ok(());
            }
        }
        let wanted = layout.size().saturating_add(layout.align()).saturating_add(OVERHEAD_BYTES);
        let pages = wanted.div_ceil(PAGE_BYTES);
        let grown_from = wasm32::memory_grow(0, pages);
        if grown_from == usize::MAX {
            return Err(());
        }
        let base = ptr::without_provenance_mut::<u8>(grown_from * PAGE_BYTES);
        // SAFETY: these pages are new, so nobody else uses them.
        unsafe { talc.claim(base, pages * PAGE_BYTES) }.map(|_| ()).ok_or(())
    }
}

/// A panic is a trap: the host discards the instance and applies the on-failure rule.
#[panic_handler]
fn trap(_: &core::panic::PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}
