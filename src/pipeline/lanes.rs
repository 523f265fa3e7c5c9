//! Lanes of a device: each scores one candidate at a time, on a stream of its own.
//!
//! In: the hypernetwork and the images on the CPU. Out: [`Lanes`], each with copies of both on its own stream. Lanes
//! share nothing on the device, so candidates in flight need no order among them.

use crate::device::{beside, free_bytes};
use crate::execute::{CandleExecutor, Precision};
use crate::ghn::Ghn;
use crate::images::{NoiseBank, PreparedImages};
use crate::score::{NoiseScore, ResidentImages};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::ops::Deref;
use std::sync::{Condvar, Mutex, PoisonError};

/// Memory that a lane wants to be free for the weights and activations of a candidate, besides its images.
const CANDIDATE_BYTES: usize = 1 << 30;

/// Images on the CPU that every lane takes a copy of.
pub(super) struct Images<'a> {
    pub clean: &'a PreparedImages,
    pub noisy: &'a NoiseBank,
    pub shape: [usize; 3],
    pub batch: usize,
}

/// What scores a candidate.
pub(super) struct Lane {
    pub device: Device,
    pub ghn: Ghn,
    pub clean: ResidentImages,
    noisy: Vec<(f64, ResidentImages)>,
}

impl Lane {
    fn new(device: Device, precision: Precision, ghn: &Ghn, images: &Images) -> Result<Lane> {
        let resident =
            |set: &PreparedImages| ResidentImages::new(set, images.shape, images.batch, &device, precision);
        let noisy = images.noisy.levels().iter().map(|(sd, set)| Ok((*sd, resident(set)?)));
        let noisy = noisy.collect::<Result<Vec<_>>>()?;
        Ok(Lane { ghn: ghn.to_device(&device)?, clean: resident(images.clean)?, noisy, device })
    }

    fn bytes(&self) -> usize {
        self.clean.bytes() + self.noisy.iter().map(|(_, images)| images.bytes()).sum::<usize>()
    }

    /// As [`crate::score::noise_accuracy`].
    pub fn noise_accuracy(&self, executor: &CandleExecutor, params: &Tensor) -> Result<Vec<NoiseScore>> {
        let level = |(sd, images): &(f64, ResidentImages)| {
            let measured = images.accuracy(executor, params)?;
            Ok(NoiseScore { sd: *sd, accuracy: measured.share(), accuracy_se: measured.standard_error() })
        };
        self.noisy.iter().map(level).collect()
    }
}

/// The lanes of a device.
pub(super) struct Lanes {
    idle: Mutex<Vec<Lane>>,
    returned: Condvar,
    count: usize,
}

impl Lanes {
    /// Up to `wanted` lanes, at least one; each further one only where the device's memory allows.
    pub fn new(
        device: &Device,
        precision: Precision,
        wanted: usize,
        ghn: &Ghn,
        images: Images,
    ) -> Result<Lanes> {
        let failed = |error: Error| Error::Config(format!("the images do not fit on the device: {error}"));
        let mut lanes = vec![Lane::new(device.clone(), precision, ghn, &images).map_err(failed)?];
        let needed = lanes[0].bytes() + CANDIDATE_BYTES;
        while lanes.len() < wanted
            && free_bytes(device).is_none_or(|free| free >= needed + lanes.len() * CANDIDATE_BYTES)
        {
            lanes.push(Lane::new(beside(device)?, precision, ghn, &images)?);
        }
        Ok(Lanes { count: lanes.len(), idle: Mutex::new(lanes), returned: Condvar::new() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// An idle lane; waits for one.
    pub fn take(&self) -> Taken<'_> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(lane) = idle.pop() {
                return Taken { lanes: self, lane: Some(lane) };
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A lane at work; it becomes idle again when this is dropped.
pub(super) struct Taken<'a> {
    lanes: &'a Lanes,
    lane: Option<Lane>,
}

impl Deref for Taken<'_> {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        self.lane.as_ref().expect("a lane is there until it is given back")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut idle = self.lanes.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.lane.take());
        self.lanes.returned.notify_one();
    }
}
