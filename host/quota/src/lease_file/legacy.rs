//! Reading what a dead holder left in its lease file.
//!
//! Runs once at start, on the bytes of the file and before it is mapped. Invariant: all or
//! nothing: one record that does not add up, and no figure of the file is believed.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    mem::offset_of,
};

use model::{
    clock::UnixMs,
    ledger::{BootId, EpochRef, HolderId, LeaseReport, Will, WindowKey},
    quota::Metric,
    tenant::TenantId,
    window::Window,
};
use uuid::Uuid;

use super::{
    IN_USE, MAGIC, checksum, map,
    record::{IDENTITY_WORDS, Record},
    state_word,
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Legacy {
    /// A new file: the first start, or somebody deleted it.
    Nothing,
    /// A whole file of this uptime.
    Will(Will),
    /// Written before the machine restarted: mapped pages may be stale.
    OtherBoot(HolderId),
    /// Not a whole lease file.
    Damaged(&'static str),
}

pub(super) fn read(file: &mut File, boot: BootId) -> io::Result<Legacy> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(Legacy::Nothing);
    }
    Ok(parse(&bytes, boot).unwrap_or_else(Legacy::Damaged))
}

fn parse(bytes: &[u8], boot: BootId) -> Result<Legacy, &'static str> {
    if word(bytes, 0) != Some(MAGIC) {
        return Err("it does not start like a lease file");
    }
    let mut header = [0; 6];
    for (index, place) in header.iter_mut().enumerate() {
        *place = word(bytes, (index + 1) * 8).ok_or("its header is cut off")?;
    }
    let [capacity, holder_high, holder_low, boot_high, boot_low, crc] = header;
    if checksum(&[capacity, holder_high, holder_low, boot_high, boot_low]) != crc {
        return Err("the checksum of its header is wrong");
    }
    let holder = HolderId(Uuid::from_u64_pair(holder_high, holder_low));
    let written = BootId(Uuid::from_u64_pair(boot_high, boot_low));
    if written != boot {
        return Ok(Legacy::OtherBoot(holder));
    }
    let capacity = u32::try_from(capacity).map_err(|_| "its capacity is absurd")?;
    if bytes.len() < map::file_bytes(capacity) {
        return Err("it is cut off");
    }
    let records = bytes.get(map::HEADER_BYTES..).unwrap_or_default();
    let leases = records
        .chunks_exact(size_of::<Record>())
        .take(capacity as usize)
        .filter_map(|record| figures(record).transpose())
        .collect::<Result<_, _>>()?;
    Ok(Legacy::Will(Will { predecessor: holder, boot, leases }))
}

/// The figures of one record; `None` for a free one.
fn figures(record: &[u8]) -> Result<Option<LeaseReport>, &'static str> {
    let field = |at: usize| word(record, at).ok_or("a record is cut off");
    let state = field(offset_of!(Record, state))?;
    if state == 0 {
        return Ok(None);
    }
    let mut identity = [0; IDENTITY_WORDS];
    for (index, place) in identity.iter_mut().enumerate() {
        *place = field(offset_of!(Record, identity) + index * 8)?;
    }
    if state >> 32 != IN_USE || state != state_word(checksum(&identity)) {
        return Err("the checksum of a record is wrong");
    }
    let [high, low, metric, start, end, epoch, tranche, lease] = identity;
    let metric = usize::try_from(metric).ok().and_then(|code| Metric::ALL.get(code));
    let tokens = field(offset_of!(Record, cell))? & u64::from(u32::MAX);
    let held = field(offset_of!(Record, received))?
        .checked_sub(field(offset_of!(Record, returned))?)
        .filter(|held| *held <= tranche);
    let spent = held.and_then(|held| held.checked_sub(tokens));
    let key = WindowKey {
        tenant: TenantId(Uuid::from_u64_pair(high, low)),
        metric: *metric.ok_or("a record has an unknown metric")?,
        window: Window { start: UnixMs(start), end: UnixMs(end) },
    };
    Ok(Some(LeaseReport {
        of: EpochRef { key, epoch },
        tranche,
        lease: u32::try_from(lease).map_err(|_| "a record has an unknown lease")?,
        spent: spent.ok_or("the figures of a record do not add up")?,
        refunded: field(offset_of!(Record, refunded))?,
        sealed: true,
    }))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(part.try_into().ok()?))
}
