//! An ONNX graph as it grows: nodes, constants, unique names.

use super::messages::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Element type f32 in ONNX.
pub(super) const FLOAT: i32 = 1;
/// Element type i64 in ONNX.
pub(super) const INT64: i32 = 7;

/// An attribute of a node.
pub(super) enum Attribute {
    Float(f32),
    Int(i64),
    Ints(Vec<i64>),
}

/// See the module.
#[derive(Default)]
pub(super) struct Graph {
    pub proto: GraphProto,
}

impl Graph {
    /// Adds an f32 constant; a second one of the same name is the same one.
    pub fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, dims, FLOAT, bytes)
    }

    /// Adds a list of i64.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, &[values.len()], INT64, bytes)
    }

    fn initializer(&mut self, name: &str, dims: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        if !self.proto.initializer.iter().any(|known| known.name == name) {
            let dims = dims.iter().map(|&side| side as i64).collect();
            self.proto.initializer.push(TensorProto { dims, data_type, name: name.to_string(), raw_data });
        }
        name.to_string()
    }

    /// Adds a node of one output, which has the node's name.
    pub fn node(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Attribute)>,
    ) -> String {
        self.nodes(op_type, name, inputs, vec![name.to_string()], attributes);
        name.to_string()
    }

    /// Adds a node with the outputs named.
    pub fn nodes(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: &[&str],
        output: Vec<String>,
        attributes: Vec<(&str, Attribute)>,
    ) {
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output,
            name: name.to_string(),
            op_type: op_type.to_string(),
            attribute: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
        });
    }
}

fn attribute(name: &str, value: Attribute) -> AttributeProto {
    let empty = AttributeProto { name: name.to_string(), ..AttributeProto::default() };
    match value {
        Attribute::Float(f) => AttributeProto { f: Some(f), kind: 1, ..empty },
        Attribute::Int(i) => AttributeProto { i: Some(i), kind: 2, ..empty },
        Attribute::Ints(ints) => AttributeProto { ints, kind: 7, ..empty },
    }
}
