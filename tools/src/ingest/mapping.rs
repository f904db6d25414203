//! Which column of a file is what: from its header, the flags and the types. Never: values, I/O.
//!
//! Long form: one row per value (`device,property,timestamp,value`). Wide form: one row per record, a column per property.
//! Invariant: a mapping is complete before the first row is read, and its `describe` text names every choice made.

use std::collections::HashMap;

use clap::{Args, ValueEnum};

use super::lines::Fields;
use super::times::TimeForm;
use super::values::Typed;

/// Flags that map columns.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MappingArgs {
    /// Device type of every row
    #[arg(
        long = "type",
        short = 't',
        value_name = "TYPE",
        required_unless_present = "type_column",
        conflicts_with = "type_column"
    )]
    pub(crate) device_type: Option<String>,
    /// Column that holds the device type, where a file has several
    #[arg(long, value_name = "COL")]
    pub(crate) type_column: Option<String>,
    /// Column of the device id, or =ID for one device [default: device, device_id, id, station or sensor]
    #[arg(long, value_name = "COL|=ID")]
    pub(crate) device: Option<String>,
    /// Put before every device id of the file
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) device_prefix: String,
    /// Column of the observation time [default: timestamp, ts, time, observed_at or datetime, with or without _s, _ms, _us, _ns]
    #[arg(long, value_name = "COL")]
    pub(crate) time: Option<String>,
    /// How the time is written [default: by the column's name, else by the first row]
    #[arg(long, value_name = "FORM")]
    pub(crate) time_format: Option<TimeForm>,
    /// Long form: column of the property id [default: property, metric or item]
    #[arg(long, value_name = "COL", requires = "value")]
    pub(crate) property: Option<String>,
    /// Long form: column of the value [default: value]
    #[arg(long, value_name = "COL")]
    pub(crate) value: Option<String>,
    /// This property is called so in the file: wide, its column; long, its name (repeat). Columns named like a property stay
    /// what they are; others are left out, which is said
    #[arg(long = "map", value_name = "PROPERTY=NAME", value_parser = crate::selector::parse_pair)]
    pub(crate) maps: Vec<(String, String)>,
    /// Wide form: leave this column out (repeat)
    #[arg(long, value_name = "COL")]
    pub(crate) ignore: Vec<String>,
    /// This text means no value, like an empty field (repeat); "" in quotes is an empty text, unless --null '' is given
    #[arg(long = "null", value_name = "TEXT")]
    pub(crate) nulls: Vec<String>,
    /// Why the records were reported
    #[arg(long, value_name = "KIND", default_value = "routine")]
    pub(crate) report_kind: KindArg,
}

/// Report kinds by name.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names of the contract")]
pub(crate) enum KindArg {
    #[default]
    Routine,
    Event,
    Backfill,
    Manual,
    Test,
    Keepalive,
}

/// Where the device id or the type comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// This column.
    Column(usize),
    /// The same for every row.
    Const(String),
}

/// How values stand in a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// Columns of the property id and the value.
    Long {
        /// Column of the property id.
        property: usize,
        /// Column of the value.
        value: usize,
        /// Property ids by the names the file uses.
        names: HashMap<String, String>,
    },
    /// Columns and the properties they hold.
    Wide(WideColumns),
}

type WideColumns = Vec<(usize, String)>;

/// A complete mapping.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// The device.
    pub(crate) device: Source,
    /// The type.
    pub(crate) device_type: Source,
    /// Column of the time.
    pub(crate) time: usize,
    /// How the time is written; None: to be told from the first row.
    pub(crate) time_form: Option<TimeForm>,
    /// Put before device ids.
    pub(crate) prefix: String,
    /// Long or wide.
    pub(crate) shape: Shape,
    /// Texts that mean no value.
    pub(crate) nulls: Vec<String>,
    /// Columns of the wide form that are left out, though no flag says so.
    pub(crate) left_out: Vec<String>,
    /// Fields of the header: a row with more of them has something that no column names.
    pub(crate) fields: usize,
}

const DEVICE_NAMES: [&str; 5] = ["device", "device_id", "id", "station", "sensor"];
const TIME_NAMES: [&str; 5] = ["timestamp", "ts", "time", "observed_at", "datetime"];
const PROPERTY_NAMES: [&str; 3] = ["property", "metric", "item"];
const VALUE_NAMES: [&str; 1] = ["value"];

/// The columns of a header, by exact name first, then without regard to case.
struct Header(Vec<String>);

impl Header {
    fn find(&self, name: &str) -> Option<usize> {
        let exact = self.0.iter().position(|column| column == name);
        exact.or_else(|| self.0.iter().position(|column| column.eq_ignore_ascii_case(name)))
    }

    fn need(&self, name: &str, flag: &str) -> Result<usize, String> {
        self.find(name)
            .ok_or_else(|| format!("{flag} {name}: no such column; the file has {}", self.0.join(", ")))
    }

    fn first(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.find(name))
    }
}

impl Mapping {
    /// Maps a file by its header row. `types` holds the type of `--type`, or every type where a column names it.
    pub(crate) fn new(header: &[u8], args: &MappingArgs, types: &[Typed]) -> Result<Mapping, String> {
        let mut fields = Fields::default();
        fields.split(header)?;
        let columns: Vec<String> = (0..fields.len())
            .filter_map(|index| fields.get(index))
            .map(str::to_owned)
            .collect();
        let header = Header(columns);
        let device_type = match (&args.type_column, &args.device_type) {
            (Some(column), _) => Source::Column(header.need(column, "--type-column")?),
            (None, Some(name)) => Source::Const(name.clone()),
            (None, None) => return Err("no device type: give --type TYPE".to_owned()),
        };
        let device = match args.device.as_deref().map(|text| text.strip_prefix('=').ok_or(text)) {
            Some(Ok(id)) => Source::Const(id.to_owned()),
            Some(Err(column)) => Source::Column(header.need(column, "--device")?),
            None => Source::Column(header.first(&DEVICE_NAMES).ok_or_else(|| {
                format!(
                    "no device column among {}: give --device COL or --device =ID",
                    header.0.join(", ")
                )
            })?),
        };
        let (time, named_form) = time_column(&header, args)?;
        let mut mapping = Mapping {
            device,
            device_type,
            time,
            time_form: args.time_format.or(named_form),
            prefix: args.device_prefix.clone(),
            shape: Shape::Wide(Vec::new()),
            nulls: args.nulls.clone(),
            left_out: Vec::new(),
            fields: header.0.len(),
        };
        match long_columns(&header, args)? {
            Some((property, value)) => {
                let names = long_names(args, types)?;
                mapping.shape = Shape::Long { property, value, names };
            }
            None => {
                let (columns, left_out) = mapping.wide_columns(&header, args, types)?;
                mapping.shape = Shape::Wide(columns);
                mapping.left_out = left_out;
            }
        }
        Ok(mapping)
    }

    /// The columns that hold properties: those that flags map, then those that are named like one. And those left out.
    fn wide_columns(
        &self,
        header: &Header,
        args: &MappingArgs,
        types: &[Typed],
    ) -> Result<(WideColumns, Vec<String>), String> {
        let mut columns = WideColumns::new();
        for (property, column) in &args.maps {
            known_property(property, types)?;
            columns.push((header.need(column, "--map")?, property.clone()));
        }
        let ignored: Vec<_> = args
            .ignore
            .iter()
            .map(|column| header.need(column, "--ignore"))
            .collect::<Result<_, _>>()?;
        let mut left_out = Vec::new();
        for (index, column) in header.0.iter().enumerate() {
            let taken = index == self.time
                || self.device == Source::Column(index)
                || self.device_type == Source::Column(index)
                || ignored.contains(&index)
                || columns.iter().any(|(mapped, _)| *mapped == index);
            if taken {
                continue;
            }
            match known_property(column, types) {
                Ok(()) if args.maps.iter().all(|(property, _)| property != column) => {
                    columns.push((index, column.clone()));
                }
                // Whoever maps columns by hand need not name those that hold nothing.
                _ if !args.maps.is_empty() => left_out.push(column.clone()),
                Ok(()) => {}
                Err(why) => {
                    return Err(format!(
                        "column {column}: {why}; map it with --map PROPERTY={column} or leave it out with --ignore {column}"
                    ));
                }
            }
        }
        if columns.is_empty() {
            return Err("no column holds a property".to_owned());
        }
        let mut properties: Vec<_> = columns.iter().map(|(_, property)| property).collect();
        properties.sort_unstable();
        match properties.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(format!("property {} is mapped twice", twice[0])),
            None => Ok((columns, left_out)),
        }
    }

    /// The mapping in one line: part of a run's fingerprint.
    pub(crate) fn describe(&self) -> String {
        let shape = match &self.shape {
            Shape::Long { property, value, names } => {
                let mut names: Vec<_> = names.iter().collect();
                names.sort_unstable();
                format!("long {property} {value} {names:?}")
            }
            Shape::Wide(columns) => format!("wide {columns:?}"),
        };
        let Mapping {
            device,
            device_type,
            time,
            time_form,
            prefix,
            nulls,
            ..
        } = self;
        format!("{device:?} {device_type:?} {time} {time_form:?} {prefix:?} {nulls:?} {shape}")
    }
}

fn time_column(header: &Header, args: &MappingArgs) -> Result<(usize, Option<TimeForm>), String> {
    if let Some(name) = &args.time {
        return Ok((header.need(name, "--time")?, TimeForm::of_name(name)));
    }
    for name in TIME_NAMES {
        for suffix in ["", "_ns", "_us", "_ms", "_s"] {
            if let Some(index) = header.find(&format!("{name}{suffix}")) {
                return Ok((index, TimeForm::of_name(&header.0[index])));
            }
        }
    }
    Err(format!("no time column among {}: give --time COL", header.0.join(", ")))
}

fn long_columns(header: &Header, args: &MappingArgs) -> Result<Option<(usize, usize)>, String> {
    if let Some(property) = &args.property {
        let value = args.value.as_deref().unwrap_or("value");
        return Ok(Some((
            header.need(property, "--property")?,
            header.need(value, "--value")?,
        )));
    }
    let value = match &args.value {
        Some(name) => Some(header.need(name, "--value")?),
        None => header.first(&VALUE_NAMES),
    };
    match (header.first(&PROPERTY_NAMES), value) {
        (Some(property), Some(value)) => Ok(Some((property, value))),
        (None, Some(_)) if args.value.is_some() => {
            Err("--value is of the long form: give --property COL too".to_owned())
        }
        _ => Ok(None),
    }
}

fn long_names(args: &MappingArgs, types: &[Typed]) -> Result<HashMap<String, String>, String> {
    if !args.ignore.is_empty() {
        return Err("--ignore is of the wide form; this file is in the long form".to_owned());
    }
    let mut names = HashMap::new();
    for (property, name) in &args.maps {
        known_property(property, types)?;
        names.insert(name.clone(), property.clone());
    }
    Ok(names)
}

fn known_property(property: &str, types: &[Typed]) -> Result<(), String> {
    if types.iter().any(|typed| typed.find(property).is_some()) {
        return Ok(());
    }
    match types {
        [only] => {
            let ids: Vec<_> = only.properties.iter().map(|property| property.id.as_str()).collect();
            Err(format!(
                "type {} has no property {property}; it has {}",
                only.id,
                ids.join(", ")
            ))
        }
        _ => Err(format!("no type has a property {property}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use tidemark_client::v1::{DeviceType, Property};

    use super::*;

    fn types() -> Vec<Typed> {
        let property = |id: &str| Property {
            id: id.into(),
            value_type: 1,
            ..Property::default()
        };
        let made = DeviceType {
            id: "tank".into(),
            properties: vec![property("level"), property("temp"), property("value")],
            ..DeviceType::default()
        };
        vec![Typed::new(&made)]
    }

    fn args() -> MappingArgs {
        MappingArgs {
            device_type: Some("tank".into()),
            ..MappingArgs::default()
        }
    }

    #[test]
    fn headers_are_recognised() {
        for (header, device, time, form) in [
            ("device,property,timestamp_ms,value", 0, 2, Some(TimeForm::Ms)),
            ("ts,Device_ID,metric,value", 1, 0, None),
            ("time_ns,station,item,value", 1, 0, Some(TimeForm::Ns)),
        ] {
            let mapping = Mapping::new(header.as_bytes(), &args(), &types()).unwrap();
            assert_eq!(
                (mapping.device.clone(), mapping.time, mapping.time_form),
                (Source::Column(device), time, form),
                "{header}"
            );
            assert!(matches!(mapping.shape, Shape::Long { .. }), "{header}");
        }
        let mapping = Mapping::new(b"device,time,level,temp", &args(), &types()).unwrap();
        assert_eq!(
            mapping.shape,
            Shape::Wide(vec![(2, "level".into()), (3, "temp".into())])
        );
        let mapping = Mapping::new(b"device,time,value", &args(), &types()).unwrap();
        assert_eq!(mapping.shape, Shape::Wide(vec![(2, "value".into())]));
    }

    #[test]
    fn flags_map_what_names_do_not_say() {
        let args = MappingArgs {
            device: Some("=t-1".into()),
            time: Some("when_s".into()),
            maps: vec![("level".into(), "L".into())],
            ..args()
        };
        let mapping = Mapping::new(b"when_s,L,rubbish", &args, &types()).unwrap();
        assert_eq!(mapping.device, Source::Const("t-1".into()));
        assert_eq!((mapping.time, mapping.time_form), (0, Some(TimeForm::S)));
        assert_eq!(mapping.shape, Shape::Wide(vec![(1, "level".into())]));
        assert_eq!(mapping.left_out, ["rubbish"]);
        let ignore = MappingArgs {
            ignore: vec!["rubbish".into()],
            ..self::args()
        };
        let mapping = Mapping::new(b"device,ts,rubbish,temp", &ignore, &types()).unwrap();
        assert_eq!(mapping.shape, Shape::Wide(vec![(3, "temp".into())]));
    }

    #[test]
    fn a_column_mapped_by_hand_drops_no_other_one() {
        let of = |header: &str, maps: &[(&str, &str)]| {
            let maps = maps.iter().map(|(property, name)| ((*property).into(), (*name).into()));
            let args = MappingArgs {
                maps: maps.collect(),
                ..args()
            };
            let mapping = Mapping::new(header.as_bytes(), &args, &types()).unwrap();
            let Shape::Wide(columns) = mapping.shape else {
                panic!("{header}")
            };
            let columns: Vec<_> = columns
                .iter()
                .map(|(at, property)| format!("{at}={property}"))
                .collect();
            (columns.join(" "), mapping.left_out.join(" "))
        };
        // As the error for `Temp` advises.
        assert_eq!(
            of("device,ts,level,Temp", &[("temp", "Temp")]),
            ("3=temp 2=level".into(), String::new())
        );
        assert_eq!(
            of("device,ts,level,T,x", &[("temp", "T")]),
            ("3=temp 2=level".into(), "x".into())
        );
        // A property comes from one column.
        assert_eq!(
            of("device,ts,temp,T", &[("temp", "T")]),
            ("3=temp".into(), "temp".into())
        );
    }

    #[test]
    fn what_cannot_be_mapped_is_named() {
        let check = |header: &str, args: MappingArgs, expected: &str| {
            let error = Mapping::new(header.as_bytes(), &args, &types()).unwrap_err();
            assert!(error.contains(expected), "{header}: {error}");
        };
        check(
            "a,time,level",
            args(),
            "no device column among a, time, level: give --device COL or --device =ID",
        );
        check("device,a,level", args(), "no time column");
        check(
            "device,time,depth",
            args(),
            "column depth: type tank has no property depth; it has level, temp, value",
        );
        check("device,time", args(), "no column holds a property");
        let twice = vec![("level".into(), "a".into()), ("level".into(), "b".into())];
        check(
            "device,time,a,b",
            MappingArgs { maps: twice, ..args() },
            "property level is mapped twice",
        );
        check(
            "device,time,a",
            MappingArgs {
                maps: vec![("level".into(), "x".into())],
                ..args()
            },
            "--map x: no such column",
        );
        check(
            "device,time,v",
            MappingArgs {
                value: Some("v".into()),
                ..args()
            },
            "--value is of the long form",
        );
    }
}
