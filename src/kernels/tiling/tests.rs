use candle_core::{Device, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// The definition, element by element.
fn oracle(tiles: &[Tile], tables: &[f64], target_len: usize) -> Vec<f64> {
    let mut params = vec![f64::NAN; target_len];
    for tile in tiles {
        let [no, ni, nh, nw] = tile.shape;
        for (index, param) in params[tile.target..].iter_mut().take(no * ni * nh * nw).enumerate() {
            let axes = [index / (nw * nh * ni), index / (nw * nh) % ni, index / nw % nh, index % nw];
            let cell: usize = (0..4).map(|a| axes[a] % tile.size[a] * tile.strides[a]).sum();
            let p = tables[tile.source + cell];
            *param = match tile.transform {
                Transform::Identity => p,
                Transform::Scale(factor) => p * factor,
                Transform::NormWeight => 2.0 / (1.0 + (-p / 2.0).exp()),
                Transform::Bias => (p / 5.0).tanh(),
            };
        }
    }
    params
}

/// Ragged targets of all transforms over tables in several memory orders; two share a table.
fn ragged() -> (Vec<Tile>, usize, usize) {
    let table = [4, 4, 3, 3];
    let row_major = [36, 9, 3, 1];
    let channels_last = [4, 1, 48, 16];
    let mut tiles = Vec::new();
    let (mut source, mut target) = (1, 0);
    let shapes: [([usize; 4], [usize; 4], Transform); 9] = [
        ([10, 3, 3, 3], row_major, Transform::Scale(0.3)),
        ([4, 9, 2, 3], channels_last, Transform::Scale(1.5)),
        ([3, 2, 1, 1], row_major, Transform::Identity),
        ([7, 1, 1, 1], row_major, Transform::NormWeight),
        ([7, 1, 1, 1], channels_last, Transform::Bias),
        ([1, 5, 5, 6], row_major, Transform::Identity),
        ([9, 9, 5, 5], channels_last, Transform::Scale(-2.0)),
        ([1, 1, 1, 1], row_major, Transform::Bias),
        ([130, 130, 1, 1], row_major, Transform::Scale(0.1)),
    ];
    for (shape, strides, transform) in shapes {
        let size = std::array::from_fn(|a| shape[a].min(table[a]));
        tiles.push(Tile { source, size, strides, shape, target, transform });
        source += 144;
        target += shape.iter().product::<usize>();
    }
    let shared = Tile { target, transform: Transform::Bias, ..tiles[3] };
    tiles.push(shared);
    (tiles, source + 5, target + 7)
}

fn uniform(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-2.0..2.0)).collect()
}

fn assert_close(found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= tolerance * (1.0 + w.abs()), "element {i}: {f}, wanted {w}");
    }
}

#[test]
fn values_follow_the_definition_in_both_dtypes() {
    let (tiles, m, p) = ragged();
    let tables = uniform(m, 1);
    let wanted = oracle(&tiles, &tables, p);
    let tiling = Arc::new(Tiling::new(tiles, m, p).unwrap());
    let input = Tensor::new(tables, &Device::Cpu).unwrap();
    assert_close(&tile(&input, &tiling).unwrap().to_vec1::<f64>().unwrap(), &wanted, 1e-14);
    let single = tile(&input.to_dtype(DType::F32).unwrap(), &tiling).unwrap();
    assert_close(&single.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap(), &wanted, 1e-6);
}

#[test]
fn gradient_equals_central_differences() {
    let (tiles, m, p) = ragged();
    let tables = uniform(m, 2);
    let upstream = uniform(p, 3);
    let loss = |tables: &[f64]| -> f64 {
        oracle(&tiles, tables, p).iter().zip(&upstream).map(|(value, weight)| value * weight).sum()
    };
    let wanted: Vec<f64> = (0..m)
        .map(|i| {
            let step = 1e-5;
            let mut moved = tables.clone();
            moved[i] += step;
            let above = loss(&moved);
            moved[i] -= 2.0 * step;
            (above - loss(&moved)) / (2.0 * step)
        })
        .collect();
    let tiling = Arc::new(Tiling::new(tiles.clone(), m, p).unwrap());
    let input = Var::new(tables.clone(), &Device::Cpu).unwrap();
    let weights = Tensor::new(upstream.clone(), &Device::Cpu).unwrap();
    let grads = (tile(&input, &tiling).unwrap() * weights).unwrap().sum_all().unwrap().backward().unwrap();
    assert_close(&grads.get(&input).unwrap().to_vec1::<f64>().unwrap(), &wanted, 1e-6);
}

#[test]
fn result_does_not_depend_on_threads() {
    let (tiles, m, p) = ragged();
    let tiling = Tiling::new(tiles, m, p).unwrap();
    let tables: Vec<f32> = uniform(m, 4).into_iter().map(|v| v as f32).collect();
    let grad: Vec<f32> = uniform(p, 5).into_iter().map(|v| v as f32).collect();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let params = cpu::forward(&tiling, &tables);
            let back = cpu::backward(&tiling, &grad, &params);
            (params, back)
        })
    };
    assert_eq!(run(1), run(5));
}

#[test]
fn an_empty_tiling_gives_an_empty_vector() {
    let tiling = Arc::new(Tiling::new(Vec::new(), 3, 0).unwrap());
    let tables = Tensor::new(&[1f32, 2.0, 3.0], &Device::Cpu).unwrap();
    assert_eq!(tile(&tables, &tiling).unwrap().dims(), [0]);
}

#[test]
fn wrong_tiles_are_refused() {
    let good = Tile {
        source: 0,
        size: [2, 1, 1, 1],
        strides: [1, 1, 1, 1],
        shape: [3, 1, 1, 1],
        target: 0,
        transform: Transform::Identity,
    };
    let reason = |tiles: &[Tile]| Tiling::new(tiles.to_vec(), 2, 3).map(|_| ()).unwrap_err().to_string();
    assert!(Tiling::new(vec![good], 2, 3).is_ok());
    assert!(reason(&[Tile { source: 1, ..good }]).contains("reads beyond the 2 table values"));
    assert!(reason(&[Tile { size: [4, 1, 1, 1], ..good }]).contains("sizes must be"));
    assert!(reason(&[Tile { size: [2, 0, 1, 1], ..good }]).contains("sizes must be"));
    assert!(reason(&[Tile { strides: [0, 1, 1, 1], ..good }]).contains("strides overlap"));
    assert!(reason(&[Tile { target: 1, ..good }]).contains("must start at 0"));
    assert!(reason(&[]).contains("write 0 values"));
    let tiling = Arc::new(Tiling::new(vec![good], 2, 3).unwrap());
    let tables = Tensor::new(&[1f32, 2.0, 3.0], &Device::Cpu).unwrap();
    assert!(tile(&tables, &tiling).unwrap_err().to_string().contains("found [3]"));
}
