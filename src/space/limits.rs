//! Limits on the size of networks: the one place where a space looks at the network that an architecture becomes.
//!
//! In: an architecture and a space's rules and limits. Out: nothing, or why the architecture is refused.

use super::architecture::CellArchitecture;
use super::definition::Space;
use super::rules::Rule;
use crate::error::{Error, Result};
use crate::network;

/// Why a space refuses an architecture.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    Rule(Rule),
    Params { found: u64, limit: u64 },
    Macs { found: u64, limit: u64 },
    LostOutput(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Rule(rule) => rule.fmt(f),
            Refusal::Params { found, limit } => write!(f, "{found} parameters, at most {limit} are allowed"),
            Refusal::Macs { found, limit } => {
                write!(f, "{found} multiply-accumulates, at most {limit} are allowed")
            }
            Refusal::LostOutput(reason) => f.write_str(reason),
        }
    }
}

impl Space {
    /// The first rule or limit that `arch` breaks.
    ///
    /// Parameters are counted as in the reference: all that are built, connected or not.
    pub(super) fn refusal(&self, arch: &CellArchitecture) -> Result<Option<Refusal>> {
        if let Some(rule) = Rule::broken_by(&arch.genotype) {
            return Ok(Some(Refusal::Rule(rule)));
        }
        let mut measured = arch.clone();
        measured.channels = self.limits.channels.unwrap_or(arch.channels);
        for &side in &self.limits.inputs {
            measured.imagenet_input = side == 224;
            let network = match network::expand(&measured, self.limits.classes) {
                Ok(network) => network,
                Err(Error::Architecture(reason)) => return Ok(Some(Refusal::LostOutput(reason))),
                Err(error) => return Err(error),
            };
            let found = network.n_params_unpruned() as u64;
            if let Some(limit) = self.limits.max_params.filter(|&limit| found > limit) {
                return Ok(Some(Refusal::Params { found, limit }));
            }
            if let Some(limit) = self.limits.max_macs {
                let found = network.cost().macs;
                if found > limit {
                    return Ok(Some(Refusal::Macs { found, limit }));
                }
            }
        }
        Ok(None)
    }
}
