"""Sparse matrices in compressed-row form, against plain loops."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from cflightning.utils.csr import Csr, csr_from_pairs


def random_matrix(rows=9, columns=7, n=40):
    rng = np.random.default_rng(0)
    row, column = (torch.from_numpy(rng.integers(0, size, n).astype(np.int32)) for size in (rows, columns))
    return row, column, csr_from_pairs(row, column, rows, columns, torch.from_numpy(rng.random(n, np.float32)))


def entries(matrix):
    pairs = list(zip(matrix.indices.tolist(), matrix.values.tolist(), strict=True))
    return [pairs[a:b] for a, b in pairwise(matrix.offsets.tolist())]


@pytest.mark.parametrize("rows", [9, 70_000])  # row indices of up to 16 bits are sorted in another way
def test_entries_are_in_the_order_of_the_pairs(rows):
    row, column, matrix = random_matrix(rows)
    assert (matrix.num_rows, matrix.num_columns) == (rows, 7)
    assert matrix.indices.dtype == torch.int32 and matrix.offsets.dtype == torch.int64
    assert matrix.counts.tolist() == np.bincount(row, minlength=rows).tolist()
    for index in row.unique().tolist():
        assert [other for other, _ in entries(matrix)[index]] == column[row == index].tolist()


def test_parts_and_selected_rows():
    *_, matrix = random_matrix()
    rows = entries(matrix)
    assert entries(matrix.part(2, 5)) == rows[2:5]
    assert entries(matrix.part(7, 99)) == rows[7:]
    assert entries(matrix.take(torch.tensor([3, 1, 3, 0], dtype=torch.int32))) == [rows[3], rows[1], rows[3], rows[0]]
    assert entries(matrix.take(torch.tensor([], dtype=torch.int64))) == []


def test_pairs_of_a_part_count_rows_from_its_begin():
    row, column, matrix = random_matrix()
    found = sorted(zip(*(part.tolist() for part in matrix.pairs(2, 5)), strict=True))
    inside = (row >= 2) & (row < 5)
    assert found == sorted(zip((row[inside] - 2).tolist(), column[inside].tolist(), strict=True))


def test_sums_of_a_table():
    row, column, matrix = random_matrix()
    table = torch.arange(14.0).reshape(7, 2)
    expected = torch.zeros(9, 2).index_add_(0, row.long(), table[column.long()])
    torch.testing.assert_close(matrix.sums(table), expected)


def test_values_are_optional():
    matrix = Csr(torch.tensor([1, 2, 1], dtype=torch.int32), torch.tensor([0, 2, 3]), 3)
    assert matrix.take(torch.tensor([1])).values is None and matrix.part(0, 1).values is None
    assert repr(matrix) == "Csr(2 x 3, 3 entries)"
