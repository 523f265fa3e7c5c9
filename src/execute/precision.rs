//! Numbers that the candle executor runs networks in.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Type of weights and activations. Statistics, norms, softmax and GELU are computed in f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// 8 bits of precision, the range of f32.
    Bf16,
    /// 11 bits of precision, up to 65504.
    F16,
}

impl Precision {
    /// candle's type.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        }
    }

    /// Whether it is the one of the CPU's executor; for settings that leave it out then.
    pub fn is_single(&self) -> bool {
        *self == Precision::F32
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// ```
    /// use foretell::execute::Precision;
    /// assert_eq!("bf16".parse::<Precision>().unwrap(), Precision::Bf16);
    /// ```
    fn from_str(text: &str) -> Result<Precision> {
        match text {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            "f16" => Ok(Precision::F16),
            _ => Err(Error::Config(format!("{text} is no precision, expected f32, bf16 or f16"))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        })
    }
}
