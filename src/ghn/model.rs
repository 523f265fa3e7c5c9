//! A hypernetwork: its settings and its tensors.
//!
//! In: settings and a seed, or settings and tensors. Out: [`Ghn`], whose tensors are candle variables named and
//! shaped as in the reference's `state_dict`.

use super::config::{GhnConfig, Init};
use super::vocabulary::Vocabulary;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};
use std::collections::BTreeMap;

/// A graph hypernetwork.
#[derive(Clone, Debug)]
pub struct Ghn {
    pub(super) config: GhnConfig,
    pub(super) vocabulary: Vocabulary,
    vars: BTreeMap<String, Var>,
}

impl Ghn {
    /// A freshly initialised hypernetwork in f32 on the CPU. Every tensor starts as PyTorch's module defaults would
    /// start it, drawn from `seed`.
    ///
    /// ```
    /// use foretell::ghn::{Ghn, GhnConfig};
    /// let ghn = Ghn::new(GhnConfig { hid: 8, ..GhnConfig::ghn2(10) }, 1).unwrap();
    /// assert_eq!(ghn.tensor("embed.weight").unwrap().dims(), [15, 8]);
    /// ```
    ///
    /// # Errors
    /// Invalid settings.
    pub fn new(config: GhnConfig, seed: u64) -> Result<Ghn> {
        config.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut vars = BTreeMap::new();
        for spec in config.tensors() {
            let count: usize = spec.shape.iter().product();
            let values: Vec<f32> = match spec.init {
                Init::Constant(value) => vec![value as f32; count],
                Init::Normal => StandardNormal.sample_iter(&mut rng).take(count).collect(),
                Init::Uniform(bound) => {
                    let unit = Distribution::<f64>::sample_iter(StandardUniform, &mut rng);
                    unit.take(count).map(|u| ((2.0 * u - 1.0) * bound) as f32).collect()
                }
            };
            vars.insert(spec.name, Var::from_tensor(&Tensor::from_vec(values, spec.shape, &Device::Cpu)?)?);
        }
        Ok(Ghn { vocabulary: Vocabulary::new(&config), config, vars })
    }

    /// A hypernetwork of given tensors.
    ///
    /// # Errors
    /// A tensor that is missing, unexpected, of the wrong shape, not f32 or f64, or not finite; all on one device
    /// and of one dtype.
    pub fn from_tensors(config: GhnConfig, mut tensors: BTreeMap<String, Tensor>) -> Result<Ghn> {
        config.validate()?;
        let mut vars = BTreeMap::new();
        let mut kind: Option<(DType, Device)> = None;
        for spec in config.tensors() {
            let name = spec.name;
            let tensor =
                tensors.remove(&name).ok_or_else(|| Error::Tensor(format!("tensor {name} is missing")))?;
            if tensor.dims() != spec.shape {
                let found = tensor.dims();
                return Err(Error::Tensor(format!(
                    "tensor {name} has shape {found:?}, but the settings ask for {:?}",
                    spec.shape
                )));
            }
            if !matches!(tensor.dtype(), DType::F32 | DType::F64) {
                return Err(Error::Tensor(format!("tensor {name} is {:?}, not F32 or F64", tensor.dtype())));
            }
            let (dtype, device) = kind.get_or_insert_with(|| (tensor.dtype(), tensor.device().clone()));
            if tensor.dtype() != *dtype || !tensor.device().same_device(device) {
                return Err(Error::Tensor(format!(
                    "tensor {name} differs from the others in dtype or device"
                )));
            }
            let sum = tensor.abs()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            if !sum.is_finite() {
                return Err(Error::NonFinite(format!("tensor {name} holds values that are not finite")));
            }
            vars.insert(name, Var::from_tensor(&tensor.contiguous()?)?);
        }
        if let Some(name) = tensors.keys().next() {
            return Err(Error::Tensor(format!(
                "tensor {name} is unknown to a hypernetwork of these settings"
            )));
        }
        Ok(Ghn { vocabulary: Vocabulary::new(&config), config, vars })
    }

    /// The settings.
    pub fn config(&self) -> &GhnConfig {
        &self.config
    }

    /// Whether it predicts classifiers for `images`, which have `classes` classes.
    ///
    /// # Errors
    /// If not, saying what makes one that does.
    pub fn check_classes(&self, classes: usize, images: &str) -> Result<()> {
        let own = self.config.num_classes;
        if own == classes {
            return Ok(());
        }
        Err(Error::Config(format!(
            "the hypernetwork predicts classifiers of {own} classes, {images} has {classes}; `foretell adapt-ghn --images \
             {images}` makes one that fits"
        )))
    }

    /// All tensors as variables, sorted by name. They share storage with the hypernetwork: an optimiser that sets
    /// them trains it.
    pub fn vars(&self) -> Vec<(String, Var)> {
        self.vars.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// A tensor by its name in the `state_dict`.
    ///
    /// # Errors
    /// If the settings do not include it.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        let var = self
            .vars
            .get(name)
            .ok_or_else(|| Error::Tensor(format!("hypernetwork without tensor {name}")))?;
        Ok(var.as_tensor())
    }

    /// Number of learned values.
    pub fn n_params(&self) -> usize {
        self.vars.values().map(|var| var.elem_count()).sum()
    }

    /// Type of its tensors, f32 or f64.
    pub fn dtype(&self) -> DType {
        self.vars["embed.weight"].dtype()
    }

    /// Where its tensors lie.
    pub fn device(&self) -> &Device {
        self.vars["embed.weight"].device()
    }

    /// A copy with other floating-point numbers (f32 or f64); its variables are its own.
    ///
    /// # Errors
    /// Any other dtype.
    pub fn to_dtype(&self, dtype: DType) -> Result<Ghn> {
        self.map(|tensor| Ok(tensor.to_dtype(dtype)?))
    }

    /// A copy on another device; its variables are its own.
    ///
    /// # Errors
    /// The device fails.
    pub fn to_device(&self, device: &Device) -> Result<Ghn> {
        self.map(|tensor| Ok(tensor.to_device(device)?))
    }

    /// A copy with `config`, which may differ in the number of classes: what predicts classifiers is then drawn from
    /// `seed`, and everything else is kept.
    ///
    /// # Errors
    /// Any other difference between the settings; [`Error::Config`] names both.
    pub fn adapted(&self, config: &GhnConfig, seed: u64) -> Result<Ghn> {
        let own = GhnConfig { num_classes: config.num_classes, ..self.config.clone() };
        if own != *config {
            let [old, new] = [&own, config].map(|c| serde_json::to_string(c).expect("plain data serialises"));
            return Err(Error::Config(format!("a hypernetwork of {old} makes none of {new}")));
        }
        if self.config == *config {
            return self.map(|tensor| Ok(tensor.clone()));
        }
        let fresh = Ghn::new(config.clone(), seed)?;
        let mut tensors = BTreeMap::new();
        for (name, new) in fresh.vars {
            let old = self.tensor(&name)?;
            let kept = if old.dims() == new.dims() { old } else { new.as_tensor() };
            tensors.insert(name, kept.detach().copy()?);
        }
        Ghn::from_tensors(config.clone(), tensors)
    }

    fn map(&self, convert: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Ghn> {
        let mut tensors = BTreeMap::new();
        for (name, var) in &self.vars {
            // A conversion that changes nothing would return the variable itself, and training the copy the original.
            tensors.insert(name.clone(), convert(var.as_tensor())?.detach().copy()?);
        }
        Ghn::from_tensors(self.config.clone(), tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> GhnConfig {
        GhnConfig { hid: 8, max_shape: [16, 16, 11, 11], ..GhnConfig::ghn2(10) }
    }

    #[test]
    fn same_seed_same_tensors() {
        let flat = |seed: u64| -> Vec<Vec<f32>> {
            let vars = Ghn::new(small(), seed).unwrap().vars();
            vars.iter().map(|(_, v)| v.flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        assert_eq!(flat(1), flat(1));
        assert_ne!(flat(1), flat(2));
        for value in &flat(3)[0] {
            assert!(value.abs() <= 0.25, "bias_class.1.bias is uniform within 16^-1/2, found {value}");
        }
    }

    #[test]
    fn other_classes_keep_all_but_the_classifiers() {
        let ghn = Ghn::new(small(), 1).unwrap();
        let config = GhnConfig { num_classes: 7, ..small() };
        let adapted = ghn.adapted(&config, 2).unwrap();
        let values = |ghn: &Ghn, name: &str| -> Vec<f32> {
            ghn.tensor(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let fresh = Ghn::new(config, 2).unwrap();
        let mut drawn = Vec::new();
        for (name, _) in adapted.vars() {
            if values(&adapted, &name) == values(&ghn, &name) {
                continue;
            }
            assert_eq!(values(&adapted, &name), values(&fresh, &name), "{name}");
            drawn.push(name);
        }
        assert_eq!(
            drawn,
            [
                "bias_class.1.bias",
                "bias_class.1.weight",
                "decoder.class_layer_predictor.1.bias",
                "decoder.class_layer_predictor.1.weight"
            ]
        );
        let same = ghn.adapted(&small(), 2).unwrap();
        same.vars()[0].1.set(&Tensor::zeros_like(same.vars()[0].1.as_tensor()).unwrap()).unwrap();
        assert!(values(&ghn, "bias_class.1.bias").iter().any(|&v| v != 0.0), "a copy shares its weights");
        let message = ghn.adapted(&GhnConfig { hid: 16, ..small() }, 2).unwrap_err().to_string();
        assert!(message.contains("\"hid\":8") && message.contains("\"hid\":16"), "{message}");
    }

    #[test]
    fn wrong_tensors_are_named() {
        let ghn = Ghn::new(small(), 1).unwrap();
        let tensors: BTreeMap<String, Tensor> =
            ghn.vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone())).collect();
        let message = |tensors| Ghn::from_tensors(small(), tensors).unwrap_err().to_string();

        let mut missing = tensors.clone();
        missing.remove("gnn.gru.bias_hh");
        assert!(message(missing).contains("gnn.gru.bias_hh is missing"));

        let mut reshaped = tensors.clone();
        reshaped.insert("ln.bias".into(), Tensor::zeros(9, DType::F32, &Device::Cpu).unwrap());
        assert!(message(reshaped).contains("ln.bias has shape [9]"));

        let mut extra = tensors.clone();
        extra.insert("ln.scale".into(), Tensor::zeros(8, DType::F32, &Device::Cpu).unwrap());
        assert!(message(extra).contains("ln.scale"));

        let mut infinite = tensors;
        infinite.insert("ln.bias".into(), Tensor::full(f32::NAN, 8, &Device::Cpu).unwrap());
        assert!(message(infinite).contains("ln.bias"));
    }

    #[test]
    fn copies_are_independent() {
        let ghn = Ghn::new(small(), 1).unwrap();
        let copy = ghn.to_dtype(DType::F32).unwrap();
        let (_, var) = copy.vars().into_iter().find(|(name, _)| name == "ln.weight").unwrap();
        var.set(&var.zeros_like().unwrap()).unwrap();
        let kept = ghn.tensor("ln.weight").unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(kept, vec![1.0; 8]);
        assert_eq!(ghn.to_dtype(DType::F64).unwrap().dtype(), DType::F64);
    }
}
