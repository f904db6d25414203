//! Every key of a shard, and the values that are not a block or a protobuf message.
//!
//! ```text
//! family   key                                                    value
//! blocks   type u32 BE | bucket start i64, sign flipped, BE |
//!          ordinal u32 BE                                         bucket value (series::bucket)
//! latest   type u32 BE | ordinal u32 BE                           latest value (series::latest)
//! devices  "i|" id                                                type u32 BE | ordinal u32 BE
//!          "o|" ordinal u32 BE                                    StoredDevice
//!          "t|" type u32 BE | ordinal u32 BE                      empty
//! meta     "n"                                                    next ordinal u32 BE
//!          "q|" producer                                          newest sequence u64 BE | stamp i64 BE
//!          "p|" length of producer u32 BE | producer | slot u8    sequence u64 BE | digest u64 BE | rows u64 BE |
//!                                                                 points u64 BE | stamp i64 BE
//!          "r"                                                    next piece u64 BE | done u8 | id of the backup
//!          "a"                                                    commands that changed alerts u64 BE
//!          "a|" type u32 BE | ordinal u32 BE | profile            AlertState
//!          "x|" log index u64 BE                                  empty: the entry stored nothing
//!          "y"                                                    log index u64 BE, up to which such entries are forgotten
//!          "u|" type u32 BE | length in seconds u32 BE |
//!          bucket start and ordinal as in blocks                  rollup (series::rollup)
//!          "s|" type u32 BE                                       raw points before this are gone, i64 BE
//!          (and those of store::replica)
//! ```
//! Points of report kind test are in `blocks` and `latest` under their type's number with the highest bit set ([`test_lane`]): whatever
//! reads a type never meets them. They have no other keys.
//!
//! Never here: reading or writing them. Invariant: keys of a family sort as their fields do, from the left.

use crate::limits::TYPE_NUMBER_MAX;
use crate::store::StoreError;

/// Set in a type number: the points of report kind test of that type.
const TEST_LANE: u32 = 1 << 31;
const _: () = assert!(
    TYPE_NUMBER_MAX < TEST_LANE,
    "a type number never looks like that of test points"
);

/// The number under which points of report kind test of a type are stored.
#[must_use]
pub const fn test_lane(type_number: u32) -> u32 {
    type_number | TEST_LANE
}

/// Whether a number is that of the points of report kind test of a type.
#[must_use]
pub const fn is_test_lane(number: u32) -> bool {
    number & TEST_LANE != 0
}

/// The type of a number, which may be that of its points of report kind test.
#[must_use]
pub const fn type_of_lane(number: u32) -> u32 {
    number & !TEST_LANE
}

/// Meta key of the next ordinal.
pub const NEXT_ORDINAL: &[u8] = b"n";
/// Meta key of the backup that was or is being restored.
pub const RESTORE: &[u8] = b"r";
/// Meta keys of remembered writes begin with this.
pub const SLOTS: &[u8] = b"p|";
/// Meta keys of entries that stored nothing begin with this.
pub const VOID: &[u8] = b"x|";
/// Meta key of the index up to which they are forgotten.
pub const VOID_FORGOTTEN: &[u8] = b"y";
/// Device keys that sort by id begin with this.
pub const IDS: &[u8] = b"i|";
/// Meta keys of producers begin with this.
pub const PRODUCERS: &[u8] = b"q|";
/// Meta key of the number of commands that changed alerts.
pub const ALERT_COMMANDS: &[u8] = b"a";
/// Meta keys of states of alerts begin with this.
pub const ALERTS: &[u8] = b"a|";
/// Device keys that sort by ordinal begin with this.
pub const ORDINALS: &[u8] = b"o|";

/// Meta keys of rollups begin with this.
pub const ROLLUPS: &[u8] = b"u|";
/// Meta keys of times before which raw points are gone begin with this.
pub const SEALS: &[u8] = b"s|";

/// A type number and the length of the windows of a rollup, seconds.
pub type Level = (u32, u32);

/// Prefix of the rollups of a type and a length.
#[must_use]
pub fn rollups((type_number, length_s): Level) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(ROLLUPS);
    key[2..6].copy_from_slice(&type_number.to_be_bytes());
    key[6..].copy_from_slice(&length_s.to_be_bytes());
    key
}

/// Key of the rollup of one bucket of one device.
#[must_use]
pub fn rollup(level: Level, bucket_ns: i64, ordinal: u32) -> [u8; 22] {
    let mut key = [0; 22];
    key[..10].copy_from_slice(&rollups(level));
    key[10..].copy_from_slice(&block(0, bucket_ns, ordinal)[4..]);
    key
}

/// Type and length, bucket start and ordinal of a key of a rollup.
///
/// # Errors
/// When it is not one.
pub fn decode_rollup(key: &[u8]) -> Result<(Level, i64, u32), StoreError> {
    let mut fields = Fields {
        rest: key.strip_prefix(ROLLUPS).unwrap_or_default(),
        what: "key of a rollup",
    };
    let type_number = u32::from_be_bytes(fields.take()?);
    let level = (type_number, u32::from_be_bytes(fields.take()?));
    let bucket_ns = i64::from_be_bytes(fields.take()?) ^ i64::MIN;
    let ordinal = u32::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok((level, bucket_ns, ordinal))
}

/// Key of the time before which raw points of a type are gone.
#[must_use]
pub fn seal(type_number: u32) -> [u8; 6] {
    let [a, b, c, d] = type_number.to_be_bytes();
    [b's', b'|', a, b, c, d]
}

/// Type and time of such a record.
///
/// # Errors
/// When it is not one.
pub fn decode_seal(key: &[u8], value: &[u8]) -> Result<(u32, i64), StoreError> {
    let mut fields = Fields {
        rest: key.strip_prefix(SEALS).unwrap_or_default(),
        what: "time before which points are gone",
    };
    let type_number = u32::from_be_bytes(fields.take()?);
    fields.end()?;
    fields.rest = value;
    let before_ns = i64::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok((type_number, before_ns))
}

/// Key of one bucket of one device.
#[must_use]
pub fn block(type_number: u32, bucket_ns: i64, ordinal: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&type_number.to_be_bytes());
    key[4..12].copy_from_slice(&(bucket_ns ^ i64::MIN).to_be_bytes());
    key[12..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

/// Type, bucket start and ordinal of a key of `blocks`.
///
/// # Errors
/// When it is not one.
pub fn decode_block(key: &[u8]) -> Result<(u32, i64, u32), StoreError> {
    let mut fields = Fields {
        rest: key,
        what: "key of blocks",
    };
    let decoded = (
        u32::from_be_bytes(fields.take()?),
        i64::from_be_bytes(fields.take()?) ^ i64::MIN,
    );
    let ordinal = u32::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok((decoded.0, decoded.1, ordinal))
}

/// Key of the newest values of one device; also the value under a device's id.
#[must_use]
pub fn latest(type_number: u32, ordinal: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&type_number.to_be_bytes());
    key[4..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

/// Type and ordinal of a key of `latest`.
///
/// # Errors
/// When it is not one.
pub fn decode_latest(key: &[u8]) -> Result<(u32, u32), StoreError> {
    let mut fields = Fields {
        rest: key,
        what: "type and ordinal",
    };
    let decoded = (u32::from_be_bytes(fields.take()?), u32::from_be_bytes(fields.take()?));
    fields.end()?;
    Ok(decoded)
}

/// Key of an entry that stored nothing.
#[must_use]
pub fn void(index: u64) -> Vec<u8> {
    [VOID, &index.to_be_bytes()].concat()
}

/// Log index of such a key.
///
/// # Errors
/// When it is not one.
pub fn decode_void(key: &[u8]) -> Result<u64, StoreError> {
    decode_index(key.strip_prefix(VOID).unwrap_or_default())
}

/// A log index.
///
/// # Errors
/// When it is not one.
pub fn decode_index(bytes: &[u8]) -> Result<u64, StoreError> {
    let mut fields = Fields {
        rest: bytes,
        what: "log index",
    };
    let index = u64::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok(index)
}

/// Key of a device by id.
#[must_use]
pub fn device_id(id: &str) -> Vec<u8> {
    [IDS, id.as_bytes()].concat()
}

/// Key of a device by ordinal.
#[must_use]
pub fn device_ordinal(ordinal: u32) -> [u8; 6] {
    let [a, b, c, d] = ordinal.to_be_bytes();
    [b'o', b'|', a, b, c, d]
}

/// Ordinal of a key of a device by ordinal.
///
/// # Errors
/// When it is not one.
pub fn decode_device_ordinal(key: &[u8]) -> Result<u32, StoreError> {
    let mut fields = Fields {
        rest: key.strip_prefix(ORDINALS).unwrap_or_default(),
        what: "key of a device by ordinal",
    };
    let ordinal = u32::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok(ordinal)
}

/// Prefix of the devices of a type.
#[must_use]
pub fn device_type(type_number: u32) -> [u8; 6] {
    let [a, b, c, d] = type_number.to_be_bytes();
    [b't', b'|', a, b, c, d]
}

/// Key that lists a device under its type.
#[must_use]
pub fn device_of_type(type_number: u32, ordinal: u32) -> Vec<u8> {
    [&device_type(type_number)[..], &ordinal.to_be_bytes()].concat()
}

/// Ordinal of a key that lists a device under its type.
///
/// # Errors
/// When it is not one.
pub fn decode_device_of_type(key: &[u8]) -> Result<u32, StoreError> {
    let mut fields = Fields {
        rest: key.get(6..).unwrap_or_default(),
        what: "key of a device by type",
    };
    let ordinal = u32::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok(ordinal)
}

/// Key of the state of a device under an alert profile.
#[must_use]
pub fn alert(type_number: u32, ordinal: u32, profile: &str) -> Vec<u8> {
    let numbers = [type_number, ordinal].map(u32::to_be_bytes);
    [ALERTS, numbers.as_flattened(), profile.as_bytes()].concat()
}

/// The first key behind all states of alerts.
#[must_use]
pub fn alerts_end() -> Vec<u8> {
    vec![ALERTS[0], ALERTS[1] + 1]
}

/// Type, ordinal and profile of a key of a state of an alert.
///
/// # Errors
/// When it is not one.
pub fn decode_alert(key: &[u8]) -> Result<(u32, u32, String), StoreError> {
    let mut fields = Fields {
        rest: key.strip_prefix(ALERTS).unwrap_or_default(),
        what: "key of an alert",
    };
    let (type_number, ordinal) = (u32::from_be_bytes(fields.take()?), u32::from_be_bytes(fields.take()?));
    let profile = String::from_utf8(fields.rest.to_vec());
    let profile = profile.map_err(|_| StoreError::Corruption("id of an alert profile is not text".into()))?;
    Ok((type_number, ordinal, profile))
}

/// A long counter.
///
/// # Errors
/// When it is not 8 bytes.
pub fn decode_u64(bytes: &[u8]) -> Result<u64, StoreError> {
    let mut fields = Fields {
        rest: bytes,
        what: "long counter",
    };
    let value = u64::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok(value)
}

/// A counter.
///
/// # Errors
/// When it is not 4 bytes.
pub fn decode_u32(bytes: &[u8]) -> Result<u32, StoreError> {
    let mut fields = Fields {
        rest: bytes,
        what: "counter",
    };
    let value = u32::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok(value)
}

/// Key of what is known of a producer as a whole.
#[must_use]
pub fn producer(name: &str) -> Vec<u8> {
    [PRODUCERS, name.as_bytes()].concat()
}

/// Prefix of the remembered writes of a producer.
#[must_use]
pub fn producer_slots(name: &str) -> Vec<u8> {
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    [SLOTS, &length.to_be_bytes()[..], name.as_bytes()].concat()
}

/// Key of one remembered write.
#[must_use]
pub fn producer_slot(name: &str, slot: u8) -> Vec<u8> {
    let mut key = producer_slots(name);
    key.push(slot);
    key
}

/// What is known of a producer as a whole.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Greatest sequence stored.
    pub newest_sequence: u64,
    /// Stamp of the last command that stored something of it.
    pub stamp_ns: i64,
}

impl Producer {
    /// As kept in `meta`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.newest_sequence.to_be_bytes(), self.stamp_ns.to_be_bytes()].concat()
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When the length is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut fields = Fields {
            rest: bytes,
            what: "producer",
        };
        let newest_sequence = u64::from_be_bytes(fields.take()?);
        let stamp_ns = i64::from_be_bytes(fields.take()?);
        fields.end()?;
        Ok(Self {
            newest_sequence,
            stamp_ns,
        })
    }
}

/// One remembered write of a producer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub sequence: u64,
    /// Digest of the request.
    pub digest: u64,
    /// Rows it stored.
    pub rows: u64,
    /// Points it stored.
    pub points: u64,
    /// Stamp of its command.
    pub stamp_ns: i64,
}

impl Slot {
    /// As kept in `meta`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.sequence, self.digest, self.rows, self.points].map(u64::to_be_bytes);
        [numbers.as_flattened(), &self.stamp_ns.to_be_bytes()].concat()
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When the length is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut fields = Fields {
            rest: bytes,
            what: "remembered write",
        };
        let mut number = || Ok::<u64, StoreError>(u64::from_be_bytes(fields.take()?));
        let (sequence, digest, rows, points) = (number()?, number()?, number()?, number()?);
        let stamp_ns = i64::from_be_bytes(fields.take()?);
        fields.end()?;
        Ok(Self {
            sequence,
            digest,
            rows,
            points,
            stamp_ns,
        })
    }
}

/// Takes fixed fields from the front.
struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.wrong())?;
        self.rest = rest;
        Ok(*field)
    }

    fn end(&self) -> Result<(), StoreError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.wrong())
        }
    }

    fn wrong(&self) -> StoreError {
        StoreError::Corruption(format!("{} has a wrong length", self.what))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const TIMES: [i64; 7] = [i64::MIN, i64::MIN + 1, -1, 0, 1, 1_700_000_000_000_000_000, i64::MAX];
    const NUMBERS: [u32; 4] = [0, 1, 256, u32::MAX];

    #[test]
    fn block_keys_round_trip_and_sort_as_their_fields() {
        let mut all = Vec::new();
        for type_number in NUMBERS {
            for bucket in TIMES {
                for ordinal in NUMBERS {
                    let key = block(type_number, bucket, ordinal);
                    assert_eq!(decode_block(&key).unwrap(), (type_number, bucket, ordinal));
                    all.push(key);
                }
            }
        }
        assert!(all.is_sorted_by(|a, b| a < b));
        assert!(decode_block(&all[0][1..]).unwrap_err().is_corruption());
    }

    #[test]
    fn small_keys_round_trip() {
        for (a, b) in NUMBERS.into_iter().flat_map(|a| NUMBERS.map(|b| (a, b))) {
            assert_eq!(decode_latest(&latest(a, b)).unwrap(), (a, b));
            assert_eq!(decode_device_of_type(&device_of_type(a, b)).unwrap(), b);
            assert!(device_of_type(a, b).starts_with(&device_type(a)));
        }
        for ordinal in NUMBERS {
            assert_eq!(decode_device_ordinal(&device_ordinal(ordinal)).unwrap(), ordinal);
        }
        for (a, b) in NUMBERS.into_iter().flat_map(|a| NUMBERS.map(|b| (a, b))) {
            let key = alert(a, b, "rain_3h");
            assert_eq!(decode_alert(&key).unwrap(), (a, b, "rain_3h".to_owned()));
            assert!(key.starts_with(ALERTS) && key < alerts_end() && key.as_slice() > ALERT_COMMANDS);
        }
        assert!(decode_alert(b"a|1234567").unwrap_err().is_corruption());
        assert_eq!(decode_u64(&7_u64.to_be_bytes()).unwrap(), 7);
        assert!(device_ordinal(255) < device_ordinal(256));
        assert!(device_ordinal(7).starts_with(ORDINALS));
    }

    #[test]
    fn keys_of_rollups_round_trip_and_sort_as_their_fields() {
        let mut all = Vec::new();
        for level in NUMBERS.into_iter().flat_map(|a| NUMBERS.map(|b| (a, b))) {
            for (bucket, ordinal) in TIMES.into_iter().flat_map(|a| NUMBERS.map(|b| (a, b))) {
                let key = rollup(level, bucket, ordinal);
                assert_eq!(decode_rollup(&key).unwrap(), (level, bucket, ordinal));
                assert!(key.starts_with(&rollups(level)));
                all.push(key);
            }
        }
        assert!(all.is_sorted_by(|a, b| a < b));
        assert!(decode_rollup(&all[0][1..]).unwrap_err().is_corruption());
        assert_eq!(decode_seal(&seal(7), &(-5_i64).to_be_bytes()).unwrap(), (7, -5));
        assert!(decode_seal(&seal(7), &[0; 7]).unwrap_err().is_corruption());
    }

    #[test]
    fn producers_never_share_keys() {
        // "a" with slot 'b' and "ab" would meet without the length.
        assert!(!producer_slot("ab", 0).starts_with(&producer_slots("a")));
        assert_ne!(producer_slot("a", b'b'), producer_slots("ab"));
        assert!(producer_slot("a", 255).starts_with(&producer_slots("a")));
    }

    #[test]
    fn small_values_round_trip() {
        let slot = Slot {
            sequence: 1,
            digest: u64::MAX,
            rows: 3,
            points: 4,
            stamp_ns: -5,
        };
        assert_eq!(Slot::decode(&slot.encode()).unwrap(), slot);
        assert!(Slot::decode(&slot.encode()[1..]).unwrap_err().is_corruption());
        let producer = Producer {
            newest_sequence: 9,
            stamp_ns: i64::MIN,
        };
        assert_eq!(Producer::decode(&producer.encode()).unwrap(), producer);
        assert!(Producer::decode(&[0; 17]).unwrap_err().is_corruption());
        assert!(decode_u32(&[0; 5]).unwrap_err().is_corruption());
    }
}
