//! Flags of comparisons between two orders of the same architectures.

use crate::report::AgreementOptions;
use anyhow::ensure;

/// Flags of agreement.
#[derive(Debug, clap::Args)]
pub(super) struct AgreementArgs {
    /// Architectures that an order hands on; the regret of the best of them is shown
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// Bootstrap samples of the intervals
    #[arg(long, value_name = "N", default_value_t = 1000)]
    samples: usize,
}

impl AgreementArgs {
    /// With samples drawn from `seed`.
    pub(super) fn options(&self, seed: u64) -> anyhow::Result<AgreementOptions> {
        ensure!(self.top > 0, "--top is 0, expected at least 1");
        Ok(AgreementOptions { top: self.top, samples: self.samples, seed })
    }
}
