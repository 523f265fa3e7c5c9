//! Search spaces: a TOML file, checked into a value that cannot be invalid.
//!
//! In: a file such as `search-spaces/deepnets1m.toml`, which documents every key. Out: a [`Space`] from which
//! architectures are drawn ([`Space::sample`]), changed ([`Space::mutate`], [`Space::crossover`]) and which says
//! whether an architecture belongs to it ([`Space::check`]). The distribution is that of DeepNets-1M
//! (arXiv 2110.13100, section 3 and appendix), each of its constants a setting.

use super::document::{Document, nearest};
use super::op::Op;
use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

/// The spaces that come with the program: name and TOML text.
const BUILTIN: [(&str, &str); 8] = [
    ("deepnets1m", include_str!("../../search-spaces/deepnets1m.toml")),
    ("wide", include_str!("../../search-spaces/wide.toml")),
    ("deep", include_str!("../../search-spaces/deep.toml")),
    ("dense", include_str!("../../search-spaces/dense.toml")),
    ("bnfree", include_str!("../../search-spaces/bnfree.toml")),
    ("deepnets1m-light", include_str!("../../search-spaces/deepnets1m-light.toml")),
    ("search", include_str!("../../search-spaces/search.toml")),
    ("small", include_str!("../../search-spaces/small.toml")),
];

/// Side of the images that networks are built for.
const INPUT_SIZES: [u64; 2] = [32, 224];

/// Limits on the networks of a space.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limits {
    pub(super) max_params: Option<u64>,
    pub(super) max_macs: Option<u64>,
    /// Width at which the limits are measured; the architecture's own if absent.
    pub(super) channels: Option<usize>,
    /// Sides of the images for which the limits are measured.
    pub(super) inputs: Vec<usize>,
    pub(super) classes: usize,
}

/// A search space.
///
/// ```
/// use foretell::space::Space;
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// let space = Space::builtin("small")?;
/// let arch = space.sample(&mut ChaCha8Rng::seed_from_u64(1))?;
/// space.check(&arch)?;
/// assert!(arch.n_cells <= 8);
/// # Ok::<(), foretell::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    pub(super) name: String,
    pub(super) imagenet_input: bool,
    pub(super) normal_ops: Vec<Op>,
    pub(super) reduce_ops: Vec<Op>,
    /// Probability that the reduction cell holds only ops without parameters.
    pub(super) plain_reduce: f64,
    pub(super) n_cells: RangeInclusive<usize>,
    /// A network is deep if it has more cells than a number drawn from here.
    pub(super) deep_above: RangeInclusive<usize>,
    pub(super) steps: RangeInclusive<usize>,
    pub(super) steps_deep: RangeInclusive<usize>,
    pub(super) drop_concat: f64,
    pub(super) channels: Vec<usize>,
    pub(super) multipliers: Vec<usize>,
    pub(super) stem_kernels: Vec<usize>,
    pub(super) stem_types: Vec<usize>,
    pub(super) stem_pool: f64,
    pub(super) norm_none: f64,
    pub(super) norm_none_max_cells: Option<usize>,
    pub(super) norm_none_max_steps: Option<usize>,
    pub(super) preproc_skip: f64,
    pub(super) preproc_skip_attention: f64,
    pub(super) fc_layers: Vec<usize>,
    pub(super) fc_dims: Vec<usize>,
    pub(super) flatten: f64,
    pub(super) limits: Limits,
}

impl Space {
    /// Reads a space from a TOML file.
    ///
    /// # Errors
    /// A file that cannot be read, or a setting that is unknown, missing or out of range: the message names the
    /// line and the valid values.
    pub fn load(path: impl AsRef<Path>) -> Result<Space> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Space::parse(path, &text)
    }

    /// The names of the bundled spaces.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|&(name, _)| name)
    }

    /// A bundled space.
    ///
    /// # Errors
    /// An unknown name; the message lists the valid ones.
    pub fn builtin(name: &str) -> Result<Space> {
        let Some((name, text)) = BUILTIN.iter().find(|(builtin, _)| *builtin == name) else {
            let hint = nearest(name, Space::builtin_names())
                .map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            let names: Vec<_> = Space::builtin_names().collect();
            return Err(Error::Config(format!(
                "no search space `{name}`: {hint}bundled are {}",
                names.join(", ")
            )));
        };
        Space::parse(Path::new(&format!("search-spaces/{name}.toml")), text)
    }

    /// The bundled space of that name, else the file of that path.
    ///
    /// # Errors
    /// As [`Space::builtin`] and [`Space::load`].
    pub fn find(name_or_path: &str) -> Result<Space> {
        let names_file = name_or_path.ends_with(".toml") || name_or_path.contains(['/', '\\']);
        if names_file || (Path::new(name_or_path).is_file() && Space::builtin(name_or_path).is_err()) {
            return Space::load(name_or_path);
        }
        Space::builtin(name_or_path)
    }

    /// Parses the text of a space; `path` only appears in messages.
    ///
    /// # Errors
    /// As [`Space::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Space> {
        let document = Document::parse(path, text)?;
        let mut root = document.root();
        let name = root.string("name")?;
        if name.trim().is_empty() {
            return Err(root.refuse("name", "a name that is not empty"));
        }
        let side = root.integer("input_size", 32..=224)?;
        if !INPUT_SIZES.contains(&side) {
            return Err(root.refuse("input_size", "32 or 224"));
        }

        let mut ops = root.section("ops")?;
        let names = Op::ALL.map(Op::name);
        let normal_ops = ops.names("normal", &names, Op::from_name)?;
        let reduce_ops = ops.names("reduce", &names, Op::from_name)?;
        let plain_reduce = ops.probability("plain_reduce")?;
        check_ops(&ops, &normal_ops, &reduce_ops, plain_reduce)?;
        ops.finish()?;

        let mut cells = root.section("cells")?;
        let n_cells = cells.range("count", 1..=100)?;
        let deep_above = cells.range("deep_above", 0..=100)?;
        let steps = cells.range("steps", 1..=MAX_STEPS)?;
        let steps_deep = cells.range("steps_deep", 1..=MAX_STEPS)?;
        let drop_concat = cells.probability("drop_concat")?;
        cells.finish()?;

        let mut width = root.section("width")?;
        let even = |n: u64| (8..=1024).contains(&n) && n.is_multiple_of(2);
        let channels = width.integers("channels", "even numbers from 8 to 1024", even)?;
        let multipliers = width.integers("multiplier", "1, 2, 3, 4", |n| (1..=4).contains(&n))?;
        width.finish()?;

        let mut stem = root.section("stem")?;
        let odd = |n: u64| (1..=11).contains(&n) && n % 2 == 1;
        let stem_kernels = stem.integers("kernel", "1, 3, 5, 7, 9, 11", odd)?;
        let stem_types = stem.integers("type", "0, 1", |n| n <= 1)?;
        let stem_pool = stem.probability("pool")?;
        stem.finish()?;

        let mut norm = root.section("norm")?;
        let norm_none = norm.probability("none")?;
        let norm_none_max_cells = norm.optional_integer("none_max_cells", 0..=100)?.map(|n| n as usize);
        let norm_none_max_steps = norm.optional_integer("none_max_steps", 0..=100)?.map(|n| n as usize);
        norm.finish()?;

        let mut preproc = root.section("preproc")?;
        let preproc_skip = preproc.probability("skip")?;
        let preproc_skip_attention = preproc.probability("skip_attention")?;
        preproc.finish()?;

        let mut head = root.section("head")?;
        let fc_layers = head.integers("layers", "1, 2", |n| n == 1 || n == 2)?;
        let fc_dims = head.integers("hidden", "numbers from 1 to 8192", |n| (1..=8192).contains(&n))?;
        let flatten = head.probability("flatten")?;
        head.finish()?;

        let mut limit = root.section("limits")?;
        let max_params = limit.optional_integer("max_params", 1..=MAX_LIMIT)?;
        let max_macs = limit.optional_integer("max_macs", 1..=MAX_LIMIT)?;
        let width = limit.optional_integer("channels", 8..=1024)?.map(|n| n as usize);
        if width.is_some_and(|n| !n.is_multiple_of(2)) {
            return Err(limit.refuse("channels", "an even number"));
        }
        let inputs = limit.integers("inputs", "32, 224", |n| INPUT_SIZES.contains(&n))?;
        let classes = limit.integer("classes", 2..=100_000)? as usize;
        limit.finish()?;
        root.finish()?;

        Ok(Space {
            name,
            imagenet_input: side == 224,
            normal_ops,
            reduce_ops,
            plain_reduce,
            n_cells,
            deep_above,
            steps,
            steps_deep,
            drop_concat,
            channels,
            multipliers,
            stem_kernels,
            stem_types,
            stem_pool,
            norm_none,
            norm_none_max_cells,
            norm_none_max_steps,
            preproc_skip,
            preproc_skip_attention,
            fc_layers,
            fc_dims,
            flatten,
            limits: Limits { max_params, max_macs, channels: width, inputs, classes },
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Classes for which limits are measured.
    pub fn num_classes(&self) -> usize {
        self.limits.classes
    }

    /// The space as a TOML file; reading it gives an equal space.
    pub fn to_toml(&self) -> String {
        let ops = |list: &[Op]| list.iter().map(|op| format!("\"{op}\"")).collect::<Vec<_>>().join(", ");
        let range = |range: &RangeInclusive<usize>| format!("[{}, {}]", range.start(), range.end());
        let mut text = String::new();
        let optional =
            |key: &str, value: Option<u64>| value.map_or_else(String::new, |n| format!("{key} = {n}\n"));
        let _ = write!(
            text,
            "name = {:?}\ninput_size = {}\n\n[ops]\nnormal = [{}]\nreduce = [{}]\nplain_reduce = {}\n\n\
             [cells]\ncount = {}\ndeep_above = {}\nsteps = {}\nsteps_deep = {}\ndrop_concat = {}\n\n\
             [width]\nchannels = {:?}\nmultiplier = {:?}\n\n\
             [stem]\nkernel = {:?}\ntype = {:?}\npool = {}\n\n[norm]\nnone = {}\n{}{}\n\
             [preproc]\nskip = {}\nskip_attention = {}\n\n[head]\nlayers = {:?}\nhidden = {:?}\nflatten = {}\n\n\
             [limits]\n{}{}{}inputs = {:?}\nclasses = {}\n",
            self.name,
            if self.imagenet_input { 224 } else { 32 },
            ops(&self.normal_ops),
            ops(&self.reduce_ops),
            self.plain_reduce,
            range(&self.n_cells),
            range(&self.deep_above),
            range(&self.steps),
            range(&self.steps_deep),
            self.drop_concat,
            self.channels,
            self.multipliers,
            self.stem_kernels,
            self.stem_types,
            self.stem_pool,
            self.norm_none,
            optional("none_max_cells", self.norm_none_max_cells.map(|n| n as u64)),
            optional("none_max_steps", self.norm_none_max_steps.map(|n| n as u64)),
            self.preproc_skip,
            self.preproc_skip_attention,
            self.fc_layers,
            self.fc_dims,
            self.flatten,
            optional("max_params", self.limits.max_params),
            optional("max_macs", self.limits.max_macs),
            optional("channels", self.limits.channels.map(|n| n as u64)),
            self.limits.inputs,
            self.limits.classes,
        );
        text
    }
}

/// Canonical ordering looks at the orders of equal steps, so their number is bounded.
const MAX_STEPS: usize = 12;
/// TOML integers are signed.
const MAX_LIMIT: u64 = i64::MAX as u64;

// Lists of ops from which no network could be drawn.
fn check_ops(
    section: &super::document::Section<'_>,
    normal: &[Op],
    reduce: &[Op],
    plain_reduce: f64,
) -> Result<()> {
    for (key, list) in [("normal", normal), ("reduce", reduce)] {
        if list == [Op::None] {
            return Err(section.refuse(key, "an operation beside `none`, which drops the edge"));
        }
    }
    let plain: Vec<_> = reduce.iter().filter(|op| !op.is_learnable() && **op != Op::None).collect();
    if plain_reduce > 0.0 && plain.is_empty() {
        let expected = "0, because `ops.reduce` holds none of max_pool_3x3, avg_pool_3x3, skip_connect";
        return Err(section.refuse("plain_reduce", expected));
    }
    let reduce = if plain_reduce < 1.0 { reduce } else { &[] };
    if !normal.iter().chain(reduce).any(|op| op.is_learnable() && *op != Op::Cse) {
        return Err(section
            .refuse("normal", "at least one convolution or msa, or no network has parameters to search"));
    }
    Ok(())
}
