//! The contract only grows: nothing of package `tidemark.v1` that was released is removed, renumbered or retyped.
//! Never here: rules of style (`make proto-lint` has those). Invariant: every line of the baseline is still true.
//!
//! A contract is a set of lines, one per fact, so that a reader sees a change of the baseline as a diff:
//! ```text
//! field   tidemark.v1.Batch 3 device_index: repeated uint32
//! value   tidemark.v1.Quality 1 QUALITY_GOOD
//! rpc     tidemark.v1.IngestService Write: tidemark.v1.WriteRequest -> tidemark.v1.WriteResponse
//! ```
//! At a release `TIDEMARK_BASELINE=write` adds the new lines (`make proto-baseline`); it refuses where one is broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

const PACKAGE: &str = "tidemark.v1";

type Contract = BTreeSet<String>;

#[test]
fn nothing_released_is_broken() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline/tidemark.v1.txt");
    let text = fs::read_to_string(&path).expect("baseline");
    let released: Contract = text.lines().map(str::to_owned).collect();
    let current = contract(&descriptors());
    assert!(current.len() > 200, "few facts found: {}", current.len());
    let broken = breaks(&released, &current).join("\n  ");
    assert!(broken.is_empty(), "\nno longer true of {PACKAGE}:\n  {broken}\n");
    if env::var("TIDEMARK_BASELINE").as_deref() == Ok("write") {
        let text: String = current.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, text).expect("write the baseline");
    } else {
        assert!(released.len() > 200, "the baseline is all but empty");
    }
}

#[test]
fn a_break_is_seen() {
    type Change = fn(&mut FileDescriptorSet);
    let cases: &[(&str, Change, &str)] = &[
        (
            "field removed",
            |set| drop(message(set, "Batch").field.remove(0)),
            "field Batch 1",
        ),
        (
            "field renumbered",
            |set| field(set, "Batch", "device_type").number = Some(99),
            "field Batch 1",
        ),
        (
            "field renamed",
            |set| field(set, "Batch", "devices").name = Some("ids".into()),
            "field Batch 2",
        ),
        (
            "field retyped",
            |set| field(set, "WriteRequest", "sequence").set_type(Type::Int64),
            "field WriteRequest 3",
        ),
        (
            "other message",
            |set| field(set, "WriteRequest", "batch").type_name = Some(".x.Y".into()),
            "WriteRequest 1",
        ),
        (
            "no longer repeated",
            |set| field(set, "Batch", "devices").set_label(Label::Optional),
            "field Batch 2",
        ),
        (
            "no longer optional",
            |set| field(set, "Property", "min").proto3_optional = None,
            "field Property 7",
        ),
        (
            "out of a oneof",
            |set| field(set, "Values", "f64").oneof_index = None,
            "field Values 1",
        ),
        (
            "message removed",
            |set| file(set, "Batch").message_type.retain(|m| m.name() != "Batch"),
            "message Batch",
        ),
        (
            "value removed",
            |set| drop(enumeration(set, "Quality").value.pop()),
            "value Quality 7",
        ),
        (
            "value renumbered",
            |set| enumeration(set, "Quality").value[1].number = Some(70),
            "value Quality 1",
        ),
        (
            "value renamed",
            |set| enumeration(set, "Kind").value[1].name = Some("KIND_X".into()),
            "value Kind 1",
        ),
        (
            "rpc removed",
            |set| drop(service(set, "IngestService").method.remove(0)),
            "rpc IngestService Write",
        ),
        (
            "rpc no longer streams",
            |set| service(set, "QueryService").method[0].server_streaming = None,
            "QueryRange",
        ),
        (
            "other answer",
            |set| service(set, "IngestService").method[0].output_type = Some(".tidemark.v1.Batch".into()),
            "rpc IngestService Write",
        ),
    ];
    let released = contract(&descriptors());
    for (case, change, expected) in cases {
        let mut set = descriptors();
        change(&mut set);
        let broken = breaks(&released, &contract(&set))
            .join("\n")
            .replace("tidemark.v1.", "");
        assert!(broken.contains(expected), "{case}: expected {expected:?} in {broken:?}");
    }
}

#[test]
fn growth_is_no_break() {
    let released = contract(&descriptors());
    let mut set = descriptors();
    let mut added = message(&mut set, "Batch").field[0].clone();
    added.number = Some(100);
    added.name = Some("added".into());
    message(&mut set, "Batch").field.push(added);
    let mut value = enumeration(&mut set, "Quality").value[0].clone();
    value.number = Some(100);
    enumeration(&mut set, "Quality").value.push(value);
    let mut method = service(&mut set, "IngestService").method[0].clone();
    method.name = Some("Added".into());
    service(&mut set, "IngestService").method.push(method);
    let grown = contract(&set);
    assert!(grown.len() >= released.len() + 3);
    assert_eq!(breaks(&released, &grown), Vec::<String>::new());
}

// ------------------------------------------------------------------------------------------------------- contract

/// What was true and no longer is, with what stands there now.
fn breaks(released: &Contract, current: &Contract) -> Vec<String> {
    let gone = released.difference(current);
    gone.map(|line| {
        let key = line.split_whitespace().take(3).collect::<Vec<_>>();
        let now = current
            .iter()
            .find(|other| other.split_whitespace().take(3).eq(key.iter().copied()));
        format!("{line}   (now: {})", now.map_or("nothing", String::as_str))
    })
    .collect()
}

fn contract(set: &FileDescriptorSet) -> Contract {
    let mut lines = Contract::new();
    for file in set.file.iter().filter(|file| file.package() == PACKAGE) {
        file.message_type
            .iter()
            .for_each(|message| describe_message(&mut lines, PACKAGE, message));
        file.enum_type
            .iter()
            .for_each(|enumeration| describe_enum(&mut lines, PACKAGE, enumeration));
        file.service
            .iter()
            .for_each(|service| describe_service(&mut lines, service));
    }
    lines
}

fn describe_message(lines: &mut Contract, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        lines.insert(format!(
            "field {name} {} {}: {}",
            field.number(),
            field.name(),
            shape(message, field)
        ));
    }
    message
        .nested_type
        .iter()
        .for_each(|nested| describe_message(lines, &name, nested));
    message
        .enum_type
        .iter()
        .for_each(|nested| describe_enum(lines, &name, nested));
}

fn shape(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let mut shape = String::new();
    match field.oneof_index {
        _ if field.proto3_optional() => shape.push_str("optional "),
        Some(index) => shape.push_str(&format!("oneof {} ", message.oneof_decl[index as usize].name())),
        None if field.label() == Label::Repeated => shape.push_str("repeated "),
        None => {}
    }
    match field.type_name.as_deref() {
        Some(name) => shape.push_str(name.trim_start_matches('.')),
        None => shape.push_str(&field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase()),
    }
    shape
}

fn describe_enum(lines: &mut Contract, scope: &str, enumeration: &EnumDescriptorProto) {
    for value in &enumeration.value {
        lines.insert(format!(
            "value {scope}.{} {} {}",
            enumeration.name(),
            value.number(),
            value.name()
        ));
    }
}

fn describe_service(lines: &mut Contract, service: &ServiceDescriptorProto) {
    for method in &service.method {
        let side = |streams: bool, name: &str| {
            format!(
                "{}{}",
                if streams { "stream " } else { "" },
                name.trim_start_matches('.')
            )
        };
        lines.insert(format!(
            "rpc {PACKAGE}.{} {}: {} -> {}",
            service.name(),
            method.name(),
            side(method.client_streaming(), method.input_type()),
            side(method.server_streaming(), method.output_type()),
        ));
    }
}

// --------------------------------------------------------------------------------------------- finding one's way

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(tidemark_proto::ALL_DESCRIPTORS).expect("descriptor set")
}

/// The file that defines a message, enum or service of this name.
fn file<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut prost_types::FileDescriptorProto {
    let defines = |file: &prost_types::FileDescriptorProto| {
        file.package() == PACKAGE
            && (file.message_type.iter().any(|x| x.name() == name)
                || file.enum_type.iter().any(|x| x.name() == name)
                || file.service.iter().any(|x| x.name() == name))
    };
    set.file
        .iter_mut()
        .find(|file| defines(file))
        .unwrap_or_else(|| panic!("{name} is not defined"))
}

fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
    file(set, name)
        .message_type
        .iter_mut()
        .find(|message| message.name() == name)
        .unwrap()
}

fn field<'a>(set: &'a mut FileDescriptorSet, of: &str, name: &str) -> &'a mut FieldDescriptorProto {
    message(set, of)
        .field
        .iter_mut()
        .find(|field| field.name() == name)
        .unwrap()
}

fn enumeration<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut EnumDescriptorProto {
    file(set, name)
        .enum_type
        .iter_mut()
        .find(|enumeration| enumeration.name() == name)
        .unwrap()
}

fn service<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut ServiceDescriptorProto {
    file(set, name)
        .service
        .iter_mut()
        .find(|service| service.name() == name)
        .unwrap()
}
