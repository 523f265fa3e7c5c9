use super::layout::{Layout, Role};
use super::*;
use crate::deepnets::resolve;
use crate::space::{Architecture, Space};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// How often each operation is a label of the drawing.
fn labels(svg: &str, op: Op) -> usize {
    svg.matches(&format!(">{op}</text></g><path")).count()
}

fn assert_whole(genotype: &Genotype) {
    let svg = genotype_svg(genotype, "a cell");
    for op in Op::ALL {
        let edges = genotype.normal.iter().chain(&genotype.reduce).filter(|edge| edge.0 == op).count();
        assert_eq!(labels(&svg, op), edges, "{op} in {genotype:?}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    for (edges, concat) in
        [(&genotype.normal, &genotype.normal_concat), (&genotype.reduce, &genotype.reduce_concat)]
    {
        let cell = Layout::new(edges, concat);
        let into_output = cell.links.iter().filter(|link| cell.places[link.to].role == Role::Output).count();
        assert_eq!(into_output, concat.len());
        for (i, a) in cell.places.iter().enumerate() {
            let (left, right) = (a.x, a.x + a.width());
            assert!(left >= 0.0 && right <= cell.size.0 && a.y > 0.0 && a.y < cell.size.1);
            for b in &cell.places[i + 1..] {
                let beside = b.x + b.width() <= left || right <= b.x;
                let apart = (a.y - b.y).abs() >= (a.height() + b.height()) / 2.0;
                assert!(beside || apart, "{:?} overlaps {:?}", a, b);
            }
        }
    }
}

#[test]
fn every_operation_is_drawn_and_nothing_overlaps() {
    for name in ["DARTS", "PDARTS"] {
        let Architecture::Cells(cells) = resolve(name, None, None).unwrap().arch else { panic!("no cells") };
        assert_whole(&cells.genotype);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for space in ["small", "deepnets1m", "dense", "search"] {
        let space = Space::find(space).unwrap();
        for _ in 0..30 {
            assert_whole(&space.sample(&mut rng).unwrap().genotype);
        }
    }
}

#[test]
fn what_does_not_reach_the_output_is_faint() {
    let edges = [Edge(Op::Conv3x3, 0), Edge(Op::None, 1), Edge(Op::Cse, 0), Edge(Op::Msa, 1)];
    let cell = Layout::new(&edges, &[2]);
    let alive = cell.alive();
    let alive_of = |role| alive[cell.places.iter().position(|place| place.role == role).unwrap()];
    assert!(alive_of(Role::State(0)) && alive_of(Role::State(2)));
    assert!(!alive_of(Role::State(1)), "state 1 is read by `none` and by an unread state only");
    assert!(!alive_of(Role::State(3)));
    let svg = cell_svg(&edges, &[2], "cell");
    assert_eq!(svg.matches("<g class=\"cell-state cell-faint\"").count(), 1);
    assert!(svg.contains("<desc>2 = conv_3x3(0) + none(1); 3 = cse(0) + msa(1); output = 2</desc>"), "{svg}");
}

#[test]
fn titles_are_text() {
    let Architecture::Cells(cells) = resolve("DARTS", None, None).unwrap().arch else { panic!("no cells") };
    let svg = genotype_svg(&cells.genotype, "</title><script>alert(\"1\")</script>&");
    assert!(
        !svg.contains("<script") && svg.contains("&lt;/title&gt;&lt;script&gt;alert(&quot;1&quot;)"),
        "{svg}"
    );
}
