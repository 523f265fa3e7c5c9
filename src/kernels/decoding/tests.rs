use super::*;
use candle_core::{Device, Var};

fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count).map(|i| ((i as f64 + 0.5) * 0.618_033_988_7 * seed).fract() - 0.5).collect()
}

const TABLE: [usize; 2] = [5, 7];
const DEPTH: usize = 6;

fn slices() -> Arc<Slices> {
    let slice = |rows, channels| Slice { rows, channels };
    let list = vec![slice(0..9, [5, 7]), slice(9..10, [4, 1]), slice(10..80, [2, 3]), slice(80..87, [5, 7])];
    Arc::new(Slices::new(list, TABLE, 87).unwrap())
}

fn vars(dtype: DType) -> [Var; 4] {
    let outputs = TABLE[0] * TABLE[1];
    let shapes =
        [(vec![87, DEPTH], 1.0), (vec![outputs, DEPTH], 1.7), (vec![outputs], 2.3), (vec![3, 2], 4.1)];
    shapes.map(|(shape, seed)| {
        let values = numbers(shape.iter().product(), seed);
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        Var::from_tensor(&tensor).unwrap()
    })
}

fn gap(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let difference = (found.to_dtype(DType::F64).unwrap() - expected.to_dtype(DType::F64).unwrap()).unwrap();
    difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap()
}

fn decode(vars: &[Var; 4], slices: &Arc<Slices>) -> Tensor {
    decode_slices([&vars[0], &vars[1], &vars[2]], slices, &[vars[3].as_tensor().clone()]).unwrap()
}

#[test]
fn blocks_and_gradients_equal_their_definition() {
    for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::F64, 1e-13)] {
        let (slices, vars) = (slices(), vars(dtype));
        let found = decode(&vars, &slices);
        let mut parts = from_operations([&vars[0], &vars[1], &vars[2]], &slices).unwrap();
        parts.push(vars[3].flatten_all().unwrap());
        let expected = Tensor::cat(&parts, 0).unwrap();
        assert!(gap(&found, &expected) <= tolerance);
        assert_eq!(slices.offsets(), [0, 315, 319, 739]);
        assert_eq!(found.elem_count(), 984 + 6);

        // Every element of the result has another gradient.
        let factors = Tensor::from_vec(numbers(990, 3.1), 990, &Device::Cpu).unwrap();
        let factors = factors.to_dtype(dtype).unwrap();
        let [found, expected] = [found, expected]
            .map(|tables| (tables * &factors).unwrap().sum_all().unwrap().backward().unwrap());
        for var in &vars {
            let [found, expected] = [&found, &expected].map(|store| store.get(var.as_tensor()).unwrap());
            assert!(gap(found, expected) <= 20.0 * tolerance, "{:?}", gap(found, expected));
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (slices, vars) = (slices(), vars(DType::F32));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let tables = decode(&vars, &slices);
            let store = tables.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let gradients = vars.iter().map(|var| store.get(var.as_tensor()).unwrap().clone());
            let values = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            gradients.chain([tables.clone()]).map(values).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn slices_that_do_not_fit_are_refused() {
    let refused = |list: &[(Range<usize>, [usize; 2])]| {
        let list = list.iter().map(|(rows, channels)| Slice { rows: rows.clone(), channels: *channels });
        Slices::new(list.collect(), TABLE, 4).unwrap_err().to_string()
    };
    assert!(refused(&[(0..4, [6, 1])]).contains("does not fit"));
    assert!(refused(&[(0..4, [1, 0])]).contains("does not fit"));
    assert!(refused(&[(0..5, [1, 1])]).contains("does not fit"));
    assert!(refused(&[(0..2, [1, 1]), (3..4, [1, 1])]).contains("does not fit"));
    assert!(refused(&[(0..2, [1, 1])]).contains("use 2 of 4 rows"));
}
