//! Device types from a TOML file in the form of the catalogue. Never: numbers of types (the server assigns them), rules about
//! ids and changes (the server judges them).
//!
//! Invariant: what a file says about a type or property is kept, in its own field or as an attribute; nothing is dropped.

use tidemark_client::v1::{DeviceType, Kind, Property, ValueType};
use toml::{Table, Value};

/// What readings of a device itself say, by the names that catalogues give them.
const DIAGNOSTICS: [(&str, &str); 3] = [("battery_pct", "battery"), ("supply_v", "supply"), ("rssi", "signal")];

/// The types of a file, in file order. `file` is named in errors.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<DeviceType>, String> {
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| format!("{file}: {error}"))?;
    let types = match table.get("device_type") {
        Some(Value::Array(types)) if !types.is_empty() => types,
        _ => return Err(format!("{file}: no [[device_type]] in this file")),
    };
    types
        .iter()
        .enumerate()
        .map(|(index, value)| device_type(value).map_err(|why| at_type(file, index, value, &why)))
        .collect()
}

fn at_type(file: &str, index: usize, value: &Value, why: &str) -> String {
    match value.get("id").and_then(Value::as_str) {
        Some(id) => format!("{file}: type {id}: {why}"),
        None => format!("{file}: type number {}: {why}", index + 1),
    }
}

fn device_type(value: &Value) -> Result<DeviceType, String> {
    let table = value.as_table().ok_or("a type must be a table")?;
    let mut made = DeviceType::default();
    for (key, value) in table {
        match key.as_str() {
            "id" => made.id = text(key, value)?,
            "name" => made.name = text(key, value)?,
            "properties" => made.properties = properties(value)?,
            "sample_interval_s" => made.sample_interval_s = integer(key, value)?,
            "report_interval_s" => made.report_interval_s = integer(key, value)?,
            "latency_s" => made.latency_s = integer(key, value)?,
            "retention_days" => made.retention_days = integer(key, value)?,
            "rollups_s" => {
                let lengths = value.as_array().ok_or("`rollups_s` must be a list of seconds")?;
                let length =
                    |value: &Value| u32::try_from(integer(key, value)?).map_err(|_| "`rollups_s` is too long".into());
                made.rollups_s = lengths.iter().map(length).collect::<Result<_, String>>()?;
            }
            "rollup_retention_days" => made.rollup_retention_days = integer(key, value)?,
            "bucket_span_s" => made.bucket_span_s = integer(key, value)?,
            "department" => made.department = text(key, value)?,
            "grade" => made.grade = text(key, value)?,
            "share" => made.share = text(key, value)?,
            "apps" => made.apps = texts(key, value)?,
            "number" | "version" => return Err(format!("`{key}` is assigned by the store: leave it out")),
            _ => {
                made.attributes.insert(key.clone(), attribute(value));
            }
        }
    }
    if made.id.is_empty() {
        return Err("no `id`".into());
    }
    name_from_attributes(&mut made.name, &mut made.attributes);
    Ok(made)
}

/// A type or property without a `name` goes by its English one.
fn name_from_attributes(name: &mut String, attributes: &mut std::collections::BTreeMap<String, String>) {
    if name.is_empty()
        && let Some(english) = attributes.remove("name_en")
    {
        *name = english;
    }
}

fn properties(value: &Value) -> Result<Vec<Property>, String> {
    let list = value.as_array().ok_or("`properties` must be a list of tables")?;
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            property(value).map_err(|why| match value.get("id").and_then(Value::as_str) {
                Some(id) => format!("property {id}: {why}"),
                None => format!("property number {}: {why}", index + 1),
            })
        })
        .collect()
}

fn property(value: &Value) -> Result<Property, String> {
    let table = value.as_table().ok_or("a property must be a table")?;
    let mut made = Property::default();
    for (key, value) in table {
        match key.as_str() {
            "id" => made.id = text(key, value)?,
            "name" => made.name = text(key, value)?,
            "unit" => made.unit = text(key, value)?,
            "value_type" => made.value_type = value_type(&text(key, value)?)? as i32,
            "kind" => made.kind = kind(&text(key, value)?)? as i32,
            "min" => made.min = Some(number(key, value)?),
            "max" => made.max = Some(number(key, value)?),
            "step" => made.step = Some(number(key, value)?),
            "wrap" => made.wrap = Some(number(key, value)?),
            "typical" => {
                let (low, high) = pair(key, value)?;
                made.typical_min = Some(low);
                made.typical_max = Some(high);
            }
            "typical_min" => made.typical_min = Some(number(key, value)?),
            "typical_max" => made.typical_max = Some(number(key, value)?),
            "values" | "labels" => made.labels = texts(key, value)?,
            "missing" => {
                let list = value.as_array().ok_or("`missing` must be a list of values")?;
                made.missing = list.iter().map(attribute).collect();
            }
            "max_len" => {
                made.max_len = u32::try_from(integer(key, value)?).map_err(|_| "`max_len` must not be negative")?;
            }
            "grade" => made.grade = text(key, value)?,
            "deprecated" => made.deprecated = truth(key, value)?,
            "allow_non_finite" => made.allow_non_finite = truth(key, value)?,
            "number" => return Err("`number` is assigned by the store: leave it out".into()),
            _ => {
                made.attributes.insert(key.clone(), attribute(value));
            }
        }
    }
    for (key, missing) in [
        ("id", made.id.is_empty()),
        ("value_type", made.value_type == 0),
        ("kind", made.kind == 0),
    ] {
        if missing {
            return Err(format!("no `{key}`"));
        }
    }
    name_from_attributes(&mut made.name, &mut made.attributes);
    name_diagnostic(&mut made);
    Ok(made)
}

/// A catalogue only says that a reading is of the device itself. What it says of it the store must be told.
fn name_diagnostic(property: &mut Property) {
    let role = DIAGNOSTICS.iter().find(|(id, _)| *id == property.id);
    if let (Some((_, role)), Some(diag)) = (role, property.attributes.get_mut("diag"))
        && diag == "true"
    {
        *diag = (*role).to_owned();
    }
}

/// The value type of a name of the catalogue.
fn value_type(name: &str) -> Result<ValueType, String> {
    Ok(match name {
        "f64" => ValueType::F64,
        "i64" => ValueType::I64,
        "bool" => ValueType::Bool,
        "enum" => ValueType::Enum,
        "text" => ValueType::Text,
        _ => {
            return Err(format!(
                "unknown value_type `{name}`: one of f64, i64, bool, enum, text"
            ));
        }
    })
}

fn kind(name: &str) -> Result<Kind, String> {
    Ok(match name {
        "gauge" => Kind::Gauge,
        "mean" => Kind::Mean,
        "increment" => Kind::Increment,
        "counter" => Kind::Counter,
        "state" => Kind::State,
        "event" => Kind::Event,
        _ => {
            return Err(format!(
                "unknown kind `{name}`: one of gauge, mean, increment, counter, state, event"
            ));
        }
    })
}

/// The name of a value type, as files write it.
pub(crate) fn value_type_name(value_type: i32) -> &'static str {
    match ValueType::try_from(value_type) {
        Ok(ValueType::F64) => "f64",
        Ok(ValueType::I64) => "i64",
        Ok(ValueType::Bool) => "bool",
        Ok(ValueType::Enum) => "enum",
        Ok(ValueType::Text) => "text",
        _ => "?",
    }
}

/// The name of a kind, as files write it.
pub(crate) fn kind_name(kind: i32) -> &'static str {
    match Kind::try_from(kind) {
        Ok(Kind::Gauge) => "gauge",
        Ok(Kind::Mean) => "mean",
        Ok(Kind::Increment) => "increment",
        Ok(Kind::Counter) => "counter",
        Ok(Kind::State) => "state",
        Ok(Kind::Event) => "event",
        _ => "?",
    }
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("`{key}` must be a text"))
}

fn integer(key: &str, value: &Value) -> Result<i64, String> {
    value
        .as_integer()
        .ok_or_else(|| format!("`{key}` must be a whole number"))
}

fn truth(key: &str, value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("`{key}` must be true or false"))
}

fn number(key: &str, value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(number) => Ok(*number),
        // Sensor ranges are far below 2^53; beyond it the nearest float is what a float property can hold anyway.
        Value::Integer(number) => Ok(*number as f64),
        _ => Err(format!("`{key}` must be a number")),
    }
}

fn pair(key: &str, value: &Value) -> Result<(f64, f64), String> {
    match value.as_array().map(Vec::as_slice) {
        Some([low, high]) => Ok((number(key, low)?, number(key, high)?)),
        _ => Err(format!("`{key}` must be a list of two numbers")),
    }
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let list = value
        .as_array()
        .ok_or_else(|| format!("`{key}` must be a list of texts"))?;
    list.iter().map(|value| text(key, value)).collect()
}

/// Plain text of any value: a string as it is, everything else as TOML writes it.
fn attribute(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GAUGE: &str = r#"
[catalog]
name_en = "ignored"
[[device_type]]
id = "depth_gauge"
code = "DG"
name_en = "Depth gauge"
sample_interval_s = 300
towns = { b = 2, a = 1 }
apps = ["flood"]
properties = [
  { id = "depth", name_zh = "深度", name_en = "Depth", unit = "m", value_type = "f64", kind = "gauge", min = 0, max = 2.0, typical = [0.0, 1.2], missing = [65535, -1.5, "0xFF"], flat_s = 7200, diag = true },
  { id = "mode", value_type = "enum", kind = "state", values = ["on", "off"], missing = ["off"] },
]
"#;

    #[test]
    fn fields_go_home_and_the_rest_is_kept() {
        let types = parse("t.toml", GAUGE).unwrap();
        let [made] = types.as_slice() else {
            unreachable!("one type")
        };
        assert_eq!(
            (made.name.as_str(), made.sample_interval_s, made.apps.len()),
            ("Depth gauge", 300, 1)
        );
        assert_eq!(made.attributes["code"], "DG");
        assert_eq!(made.attributes["towns"], "{ b = 2, a = 1 }");
        let depth = &made.properties[0];
        assert_eq!(
            (depth.min, depth.max, depth.typical_max),
            (Some(0.0), Some(2.0), Some(1.2))
        );
        assert_eq!(
            (depth.name.as_str(), depth.attributes["name_zh"].as_str()),
            ("Depth", "深度")
        );
        assert_eq!(
            (depth.attributes["flat_s"].as_str(), depth.attributes["diag"].as_str()),
            ("7200", "true")
        );
        assert_eq!(made.properties[1].labels, ["on", "off"]);
        assert_eq!(made.properties[1].missing, ["off"]);
        assert_eq!(depth.missing, ["65535", "-1.5", "0xFF"]);
    }

    #[test]
    fn readings_of_the_device_itself_get_their_role() {
        let role = |property: &str| {
            let text = GAUGE.replace("id = \"depth\"", property);
            let made = parse("t.toml", &text).unwrap().remove(0);
            made.properties[0].attributes["diag"].clone()
        };
        assert_eq!(role("id = \"battery_pct\""), "battery");
        assert_eq!(role("id = \"supply_v\""), "supply");
        assert_eq!(role("id = \"rssi\""), "signal");
        assert_eq!(role("id = \"contamination\""), "true", "known to nobody here");
        let given = GAUGE.replace("diag = true", "diag = \"battery\"");
        let made = parse("t.toml", &given).unwrap().remove(0);
        assert_eq!(
            made.properties[0].attributes["diag"], "battery",
            "a file may say so itself"
        );
    }

    #[test]
    fn errors_name_file_type_and_property() {
        for (from, to, expected) in [
            (
                "\"f64\"",
                "\"f32\"",
                "t.toml: type depth_gauge: property depth: unknown value_type `f32`: one of f64, i64, bool, enum, text",
            ),
            (
                "\"gauge\"",
                "\"level\"",
                "t.toml: type depth_gauge: property depth: unknown kind `level`: one of gauge, mean, increment, counter, state, event",
            ),
            (
                "kind = \"state\", ",
                "",
                "t.toml: type depth_gauge: property mode: no `kind`",
            ),
            (
                "id = \"mode\", ",
                "",
                "t.toml: type depth_gauge: property number 2: no `id`",
            ),
            (
                "300",
                "\"300\"",
                "t.toml: type depth_gauge: `sample_interval_s` must be a whole number",
            ),
            (
                "[0.0, 1.2]",
                "[0.0]",
                "t.toml: type depth_gauge: property depth: `typical` must be a list of two numbers",
            ),
            ("[[device_type]]", "[device]", "t.toml: no [[device_type]] in this file"),
        ] {
            assert_eq!(parse("t.toml", &GAUGE.replace(from, to)).unwrap_err(), expected);
        }
    }
}
