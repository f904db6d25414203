//! What can go wrong, said once: a reason, its gRPC code, and what the caller should do. Never: transport types.
//!
//! Invariant: every reason maps to exactly one code, and only reasons that a retry can help carry a delay.

use std::fmt;

/// Canonical gRPC codes that this store answers with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs, reason = "the canonical names")]
pub enum Code {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $code:ident;)+) => {
        /// Machine-readable reason of a failure. The text never changes once released.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason, for the table in `proto/README.md` and its test.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// Upper snake case, stable.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)+ }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+).trim(),)+ }
            }

            /// The one gRPC code of this reason.
            pub fn code(self) -> Code {
                match self { $(Reason::$name => Code::$code,)+ }
            }

            /// The reason with this text.
            pub fn parse(text: &str) -> Option<Reason> {
                match text { $($text => Some(Reason::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// An id is empty, too long or has characters outside `[A-Za-z0-9._:-]`.
    InvalidId = "INVALID_ID", InvalidArgument;
    /// The bytes of a request are no message of the contract.
    MalformedMessage = "MALFORMED_MESSAGE", InvalidArgument;
    /// A required field is missing.
    MissingField = "MISSING_FIELD", InvalidArgument;
    /// Columns, indexes or bitmaps of a batch do not fit together.
    MalformedBatch = "MALFORMED_BATCH", InvalidArgument;
    /// A device type breaks a rule.
    InvalidType = "INVALID_TYPE", InvalidArgument;
    /// A device breaks a rule.
    InvalidDevice = "INVALID_DEVICE", InvalidArgument;
    /// NaN or an infinity for a property that does not take them.
    NonFinite = "NON_FINITE", InvalidArgument;
    /// An enum label the property does not have.
    UnknownLabel = "UNKNOWN_LABEL", InvalidArgument;
    /// A text longer than the property allows.
    TextTooLong = "TEXT_TOO_LONG", InvalidArgument;
    /// A time that no sensor can mean (the ends of the range).
    TimeInvalid = "TIME_INVALID", InvalidArgument;
    /// A query whose range ends before it starts.
    RangeReversed = "RANGE_REVERSED", InvalidArgument;
    /// A window step of zero or less.
    StepNotPositive = "STEP_NOT_POSITIVE", InvalidArgument;
    /// A query that chooses no device.
    NoSelector = "NO_SELECTOR", InvalidArgument;
    /// A query that asks for no function.
    NoFunction = "NO_FUNCTION", InvalidArgument;
    /// A function that has no meaning for the kind or type of a property.
    UnlawfulFunction = "UNLAWFUL_FUNCTION", InvalidArgument;
    /// An alert profile breaks a rule.
    InvalidAlertProfile = "INVALID_ALERT_PROFILE", InvalidArgument;
    /// Any other value out of its domain.
    InvalidValue = "INVALID_VALUE", InvalidArgument;
    /// Shards, replicas or peers of a new cluster out of their domain.
    InvalidInit = "INVALID_INIT", InvalidArgument;
    /// The same producer and sequence came with other content.
    SequenceReused = "SEQUENCE_REUSED", InvalidArgument;
    /// A cursor that was made up or changed, is of another question, application or cluster, too old, or none at all.
    InvalidCursor = "INVALID_CURSOR", InvalidArgument;
    /// No device type of this id.
    UnknownType = "UNKNOWN_TYPE", NotFound;
    /// No device of this id.
    UnknownDevice = "UNKNOWN_DEVICE", NotFound;
    /// No property of this id in the device type.
    UnknownProperty = "UNKNOWN_PROPERTY", NotFound;
    /// No alert profile of this id.
    UnknownAlertProfile = "UNKNOWN_ALERT_PROFILE", NotFound;
    /// No alert of this device, profile and begin, or not any more.
    UnknownAlert = "UNKNOWN_ALERT", NotFound;
    /// An alert that is in force cannot be closed.
    AlertInForce = "ALERT_IN_FORCE", FailedPrecondition;
    /// A value of another type than the property's.
    WrongValueType = "WRONG_VALUE_TYPE", FailedPrecondition;
    /// A device of another type than the batch's.
    WrongDeviceType = "WRONG_DEVICE_TYPE", FailedPrecondition;
    /// The type of a device cannot change.
    DeviceTypeFixed = "DEVICE_TYPE_FIXED", FailedPrecondition;
    /// A property or type would change in a way that stored points forbid.
    TypeChangeRefused = "TYPE_CHANGE_REFUSED", FailedPrecondition;
    /// The shard no longer remembers whether it has this sequence.
    SequenceTooOld = "SEQUENCE_TOO_OLD", FailedPrecondition;
    /// The node belongs to no cluster yet.
    NotInitialised = "NOT_INITIALISED", FailedPrecondition;
    /// The cluster exists already.
    AlreadyInitialised = "ALREADY_INITIALISED", FailedPrecondition;
    /// The caller means another cluster or node.
    WrongCluster = "WRONG_CLUSTER", FailedPrecondition;
    /// No node of this number.
    UnknownNode = "UNKNOWN_NODE", NotFound;
    /// No shard of this number.
    UnknownShard = "UNKNOWN_SHARD", NotFound;
    /// No job of this number.
    UnknownJob = "UNKNOWN_JOB", NotFound;
    /// A node was taken out of the cluster for good.
    NodeRemoved = "NODE_REMOVED", FailedPrecondition;
    /// The address belongs to a node that has another data folder.
    NodeKnown = "NODE_KNOWN", FailedPrecondition;
    /// One job runs already.
    JobRunning = "JOB_RUNNING", FailedPrecondition;
    /// The job has ended.
    JobEnded = "JOB_ENDED", FailedPrecondition;
    /// Nodes or replicas changed since the plan was made.
    PlacementChanged = "PLACEMENT_CHANGED", FailedPrecondition;
    /// A shard would be left with fewer replicas than its factor.
    FactorUnmet = "FACTOR_UNMET", FailedPrecondition;
    /// No disk has room for a replica that has to go somewhere.
    NoRoom = "NO_ROOM", FailedPrecondition;
    /// A node that does not answer is to be given replicas.
    NodeDown = "NODE_DOWN", FailedPrecondition;
    /// A node that is cordoned or leaves is to be given replicas.
    NodeCordoned = "NODE_CORDONED", FailedPrecondition;
    /// Too few replicas of a shard are alive to change anything about it.
    QuorumLost = "QUORUM_LOST", FailedPrecondition;
    /// A move that its shard or node cannot make.
    InvalidMove = "INVALID_MOVE", FailedPrecondition;
    /// A backup is restored into a cluster that has types or devices.
    ClusterNotEmpty = "CLUSTER_NOT_EMPTY", FailedPrecondition;
    /// A backup is on its way into the cluster.
    RestoreRunning = "RESTORE_RUNNING", FailedPrecondition;
    /// This node does not lead the shard, and only its leader will do.
    NotLeader = "NOT_LEADER", FailedPrecondition;
    /// No such backup on this node, or not any more.
    UnknownBackup = "UNKNOWN_BACKUP", NotFound;
    /// A backup that is torn, of another kind, or newer than this version.
    InvalidBackup = "INVALID_BACKUP", FailedPrecondition;
    /// Older than the type's retention.
    TimeTooOld = "TIME_TOO_OLD", OutOfRange;
    /// A shard refused its rows of a batch after another one had stored its own; the rows that are not stored are named.
    PartlyStored = "PARTLY_STORED", OutOfRange;
    /// Further ahead than clocks may be.
    TimeTooNew = "TIME_TOO_NEW", OutOfRange;
    /// A cursor points to what the log no longer holds.
    CursorExpired = "CURSOR_EXPIRED", OutOfRange;
    /// The exact sum of integers does not fit 64 bits.
    SumOverflow = "SUM_OVERFLOW", OutOfRange;
    /// A request of more bytes than one message may have.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted;
    /// More rows, points or bytes than one request may carry.
    BatchTooLarge = "BATCH_TOO_LARGE", ResourceExhausted;
    /// More device types than the catalog holds.
    TooManyTypes = "TOO_MANY_TYPES", ResourceExhausted;
    /// More devices than a shard takes.
    TooManyDevices = "TOO_MANY_DEVICES", ResourceExhausted;
    /// More alert profiles than the catalog holds.
    TooManyAlertProfiles = "TOO_MANY_ALERT_PROFILES", ResourceExhausted;
    /// More windows than one series may have.
    TooManyWindows = "TOO_MANY_WINDOWS", ResourceExhausted;
    /// More devices or series on the right of a join than there may be.
    TooManySeries = "TOO_MANY_SERIES", ResourceExhausted;
    /// The query holds more than its budget.
    QueryTooLarge = "QUERY_TOO_LARGE", ResourceExhausted;
    /// The query decodes more values than it may.
    TooManyPoints = "TOO_MANY_POINTS", ResourceExhausted;
    /// A disk that this write needs is almost full.
    DiskLow = "DISK_LOW", ResourceExhausted;
    /// The node has as much in flight as it may.
    Overloaded = "OVERLOADED", ResourceExhausted;
    /// The application has as much of the node as it may.
    ApplicationLimit = "APPLICATION_LIMIT", ResourceExhausted;
    /// The shard has no leader that this node can reach; nothing was stored.
    NoLeader = "NO_LEADER", Unavailable;
    /// The request may or may not have been stored.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unavailable;
    /// No replica is as fresh as asked.
    TooStale = "TOO_STALE", Unavailable;
    /// Another node cannot be reached.
    Unreachable = "UNREACHABLE", Unavailable;
    /// The node is stopping.
    Stopping = "STOPPING", Unavailable;
    /// The client took nothing of an answer for half a minute.
    AnswerNotTaken = "ANSWER_NOT_TAKEN", Cancelled;
    /// Time ran out.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// Stored bytes failed a check.
    Corruption = "CORRUPTION", DataLoss;
    /// A defect of this store.
    Internal = "INTERNAL", Internal;
}

impl Reason {
    /// True where the failure proves that nothing of the request was stored.
    pub fn stored_nothing(self) -> bool {
        !matches!(
            self,
            Reason::OutcomeUnknown
                | Reason::PartlyStored
                | Reason::DeadlineExceeded
                | Reason::Unreachable
                | Reason::Internal
                | Reason::Corruption
        )
    }
}

/// One bad row of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct RowError {
    /// Position in the batch.
    pub row: u32,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// The column's property, or `observed_at_ns`, or `device_index`.
    pub field: String,
}

/// A failure with everything a caller needs to act on it.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    reason: Reason,
    message: String,
    field: String,
    rows: Vec<RowError>,
    hint: String,
    retry_after_ms: u64,
}

/// When a caller may come again to a node that has as much in flight as it may, milliseconds.
const OVERLOADED_MS: std::ops::RangeInclusive<u64> = 50..=250;

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure; reasons that a retry can help get a delay by themselves.
    pub fn new(reason: Reason, message: impl Into<String>) -> Error {
        let retry_after_ms = match reason {
            Reason::NoLeader | Reason::TooStale | Reason::Unreachable => 200,
            // Another node takes it at once.
            Reason::Stopping => 20,
            Reason::OutcomeUnknown => 100,
            // Drawn anew each time, or all who were refused together come back together.
            Reason::Overloaded | Reason::ApplicationLimit => rand::random_range(OVERLOADED_MS),
            Reason::DiskLow => 1_000,
            _ => 0,
        };
        Error(Box::new(Inner {
            reason,
            message: message.into(),
            field: String::new(),
            rows: Vec::new(),
            hint: String::new(),
            retry_after_ms,
        }))
    }

    /// Names the offending field.
    pub fn field(mut self, field: impl Into<String>) -> Error {
        self.0.field = field.into();
        self
    }

    /// Says what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = hint.into();
        self
    }

    /// Names the bad rows.
    pub fn rows(mut self, rows: Vec<RowError>) -> Error {
        self.0.rows = rows;
        self
    }

    /// Replaces the delay before a retry.
    pub fn retry_after_ms(mut self, retry_after_ms: u64) -> Error {
        self.0.retry_after_ms = retry_after_ms;
        self
    }

    /// A defect of this store, or of the disk under it.
    pub fn internal(error: impl fmt::Display) -> Error {
        Error::new(Reason::Internal, error.to_string())
    }

    #[allow(missing_docs, reason = "plain accessors")]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    #[allow(missing_docs, reason = "plain accessors")]
    pub fn code(&self) -> Code {
        self.0.reason.code()
    }

    #[allow(missing_docs, reason = "plain accessors")]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    #[allow(missing_docs, reason = "plain accessors")]
    pub fn field_path(&self) -> &str {
        &self.0.field
    }

    #[allow(missing_docs, reason = "plain accessors")]
    pub fn bad_rows(&self) -> &[RowError] {
        &self.0.rows
    }

    #[allow(missing_docs, reason = "plain accessors")]
    pub fn hint_text(&self) -> &str {
        &self.0.hint
    }

    /// Milliseconds to wait before a retry; 0 where a retry cannot help.
    pub fn retry_after(&self) -> u64 {
        self.0.retry_after_ms
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.reason.as_str(), self.0.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_that_are_refused_together_do_not_come_back_together() {
        let waits: std::collections::BTreeSet<u64> = (0..100)
            .map(|_| Error::new(Reason::Overloaded, "").retry_after())
            .collect();
        assert!(waits.len() > 10, "{waits:?}");
        assert!(waits.iter().all(|wait| OVERLOADED_MS.contains(wait)), "{waits:?}");
    }
}
