//! ONNX: one file with the graph, the weights and how images are prepared.
//!
//! In: a [`Model`]. Out: the bytes of an ONNX model, operator set 17, input `images [N, 3, H, W]`, output `logits
//! [N, classes]`, N free. Batch norms are in inference mode with the stored statistics, dropout is gone. Tensors
//! keep the names of the `state_dict`, and nodes are named by their modules. A linear layer on positions is a 1x1
//! convolution, GELU is written out (its own operator came with set 20).

mod graph;
mod messages;
mod ops;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

use self::graph::{FLOAT, Graph};
use self::messages::{
    DimensionProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::model::Model;
use crate::{Error, Result};
use prost::Message;

/// Version of the file format that has operator set 17.
const IR_VERSION: i64 = 8;
/// The operator set.
const OPERATORS: i64 = 17;
/// Largest message of protobuf, bytes.
const LARGEST: usize = i32::MAX as usize;

/// The bytes of `model` as an ONNX file; equal models give equal bytes.
///
/// # Errors
/// The model is over 2 GB, or its statistics do not fit it.
pub fn to_onnx(model: &Model) -> Result<Vec<u8>> {
    let mut graph = Graph::default();
    ops::translate(model, &mut graph)?;
    let mut proto = graph.proto;
    proto.name = model.record.id.clone();
    let [channels, height, width] = model.network.input_shape();
    proto.input = vec![value(ops::INPUT, &[channels, height, width])];
    proto.output = vec![value(ops::OUTPUT, &[model.network.num_classes()])];
    let message = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "foretell".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: "images: float32 [N, 3, H, W], prepared as the metadata \"input\" says; \
                     logits: a column for each of \"classes\""
            .into(),
        graph: Some(proto),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPERATORS }],
        metadata_props: model
            .metadata()?
            .into_iter()
            .map(|(key, value)| StringStringEntryProto { key, value })
            .collect(),
    };
    let size = message.encoded_len();
    if size > LARGEST {
        return Err(Error::Config(format!(
            "{}: an ONNX file of {size} bytes is larger than the format allows ({LARGEST})",
            model.record.id
        )));
    }
    Ok(message.encode_to_vec())
}

/// An f32 tensor with a free first side.
fn value(name: &str, sides: &[usize]) -> ValueInfoProto {
    let fixed = |&side: &usize| DimensionProto { dim_value: Some(side as i64), dim_param: None };
    let free = DimensionProto { dim_value: None, dim_param: Some("N".into()) };
    let dim = std::iter::once(free).chain(sides.iter().map(fixed)).collect();
    let tensor_type = TensorTypeProto { elem_type: FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
