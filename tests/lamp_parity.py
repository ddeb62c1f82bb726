"""Every op, module, optimizer, schedule and loss of lamp, what it is here, and the test that proves it.

lamp (github.com/pityka/lamp, commit b1f04423) is the library that telegrad descends from. `scripts/docs` writes
`docs/lamp-parity.md` from this table and `test_lamp_parity` holds it to the code: every name resolves, every test is
collected. To fill a row that is not there yet, give it its name and its test, and take it out of `NOT_YET`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A name of lamp, ours (none if there is nothing yet), and the ids of tests; a * at the end stands for the rest."""

    lamp: str
    ours: tuple[str, ...] = ()
    proof: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One kind of thing, and how many of them lamp has."""

    title: str
    count: int
    rows: tuple[Row, ...]


OPS = "tests/ops"
CLIENT = "tests/client"
NN = f"{CLIENT}/test_modules_against_torch.py::test_a_module_does_what_pytorchs_does"
PIECES = f"{CLIENT}/test_lamp_pieces.py"
DOMAINS = f"{CLIENT}/test_lamp_graphs_and_text.py"
GRAPHS = f"{CLIENT}/test_graph_layers.py"
PUBLISHED = "tests/models/test_published.py"


def _row(lamp: str, ours: str, *proof: str, note: str = "") -> Row:
    return Row(lamp, tuple([f"telegrad.{name}" for name in ours.split()]), proof, note)


def _cases(lamp: str, ours: str, *cases: str, note: str = "") -> Row:
    """An op that lamp differentiates in its own tests: its cases, by their names."""
    test = f"{OPS}/test_lamp_cases.py::test_gradient_for_a_random_cotangent"
    return _row(lamp, ours, *[f"{test}[{case}]" for case in cases], note=note)


def _facts(lamp: str, ours: str, *ops: str, differentiable: bool = True, note: str = "") -> Row:
    """An op without a case: the facts of ours in the registry."""
    what = (
        "first_and_second_gradients_are_those_of_differences"
        if differentiable
        else "results_are_those_of_the_reference"
    )
    return _row(lamp, ours, *[f"{OPS}/test_registry.py::test_{what}[{op}-0]" for op in ops], note=note)


def _torch(lamp: str, ours: str, note: str = "") -> Row:
    """A module that does what PyTorch's of the same name does."""
    return _row(lamp, f"nn.{ours}", f"{NN}[{ours}-*", note=note)


def _not_yet(lamp: str, note: str) -> Row:
    return Row(lamp, note=note)


ITEM = "Tensor.__getitem__"
SUBCLASS = "a subclass of `nn.Module`"
WATCH = "the gradient at an inner value is that of a zero added there; no code of yours runs on the server"
WATCHED = (
    f"{PIECES}::test_the_gradient_at_an_inner_value_is_that_of_a_zero_added_there*",
    f"{PIECES}::test_a_transform_gives_the_gradient_at_an_inner_value",
)

_OPS = (
    _cases("Transpose", "permute_dims matrix_transpose", "transpose"),
    _cases("View", "reshape expand_dims", "view 1"),
    _cases("Reshape", "reshape", "reshape 1"),
    _cases("Flatten", "flatten", "flatten"),
    _cases("Concatenate", "concat", "cat 1", "cat 2"),
    _cases("Stack", "stack", "stack 0", "stack 1"),
    _cases("Select", ITEM, "select 0 0", "select 2 1"),
    _cases("Slice", ITEM, "slice"),
    _cases("IndexSelect", "take", "index_select"),
    _cases("IndexFill", "where", "index_fill"),
    _cases("IndexAdd", "scatter_add", "index sum"),
    _cases("IndexAddToTarget", "scatter_add add", "index add by target", "index add by src"),
    _cases("ScatterAdd", "scatter_add", "scatter sum"),
    _cases("RepeatInterleave", "repeat take", "repeat interleave"),
    _cases("MaskFill", "where", "mask-fill"),
    _cases("MaskSelect", "take", "mask-select", note="the positions of a mask are found outside of the graph"),
    _facts("EqWhere", "equal", "equal", differentiable=False),
    _cases("Where", "where", "where true branch", "where false branch"),
    _facts("ArgMax", "argmax", "argmax", differentiable=False),
    _row("OneHot", "one_hot", f"{OPS}/test_functions.py::test_other_functions_follow_their_definition[one_hot-0]"),
    _cases(
        "Assign", "", "assign - right", "assign - left", note="nothing is needed: a value that is not used is dead code"
    ),
    _cases("CastToPrecision", "astype", "cast to float"),
    _cases("ExpandAs", "broadcast_to", "expand as"),
    _facts("Expand", "broadcast_to", "broadcast_to"),
    _cases("Diag", "diag", "diag"),
    _cases("SparseFromValueAndIndex", "sparse.coo", "sparse to dense"),
    _cases("ToDense", "sparse.Coo.to_dense", "sparse to dense"),
    _cases("Embedding", "nn.functional.embedding", "embedding"),
    _row("Debug", "grad", *WATCHED, note=WATCH),
    _row(
        "Dropout",
        "nn.functional.dropout",
        f"{OPS}/test_random.py::test_dropout_keeps_the_mean_and_its_gradient_has_the_same_mask",
    ),
    _cases("Add", "add", "add - left", "add - right", "add broadcasted - left", "add broadcasted - right"),
    _cases("ConstAdd", "add", "constadd"),
    _cases(
        "Minus", "subtract", "minus - left", "minus - right", "minus broadcasted - left", "minus broadcasted - right"
    ),
    _cases("Mult", "multiply", "mult - right", "mult broadcasted - left", "mult broadcasted - right"),
    _cases("ConstMult", "multiply", "constmult"),
    _cases("Div", "divide", "div - left", "div - right", "div broadcasted - left"),
    _cases("Cross", "cross linalg.cross", "cross left", "cross right"),
    _cases("Exp", "exp", "exp"),
    _cases("Log", "log", "log"),
    _cases("Log1p", "log1p", "log1p"),
    _cases("Sin", "sin", "sin"),
    _cases("Cos", "cos", "cos"),
    _cases("Tan", "tan", "tan"),
    _cases("Tanh", "tanh", "tanh"),
    _cases("ArcTan", "atan", "atan"),
    _cases("PowConst", "pow", "pow"),
    _cases("Pow", "pow", "pow 2"),
    _cases("Relu", "relu", "relu", note="the derivative at 0 is 0, as in PyTorch; lamp's is 1"),
    _cases("LeakyRelu", "nn.functional.leaky_relu", "leakyrelu"),
    _cases("Sigmoid", "sigmoid", "sigmoid"),
    _cases("HardSwish", "nn.functional.hardswish", "hardswish"),
    _cases("Gelu", "nn.functional.gelu", "gelu"),
    _cases("Softplus", "nn.functional.softplus", "softplus"),
    _cases("CappedShiftedNegativeExponential", "where exp", "capped exp"),
    _cases("ElementWiseMinimum", "minimum", "min - left", "min - right", note="equal elements share the gradient"),
    _cases("ElementWiseMaximum", "maximum", "max - left", "max - right", note="equal elements share the gradient"),
    _cases("LogSoftMax", "log_softmax", "softmax"),
    _cases(
        "EuclideanDistance",
        "linalg.vector_norm nn.functional.pairwise_distance",
        "euclidean distance wrt a",
        "euclidean distance wrt b",
    ),
    _cases("Sum", "sum", "sum", "colSum", "rowSum"),
    _cases("Mean", "mean", "mean"),
    _cases("Variance", "var", "variance"),
    _cases("Norm2", "linalg.vector_norm", "norm2"),
    _cases("SquaredFrobeniusMatrixNorm", "sum square", "squaredFrobenius"),
    _cases("LogDet", "linalg.logdet", "logdet"),
    _cases("MatMul", "matmul sparse.Coo.__matmul__", "mm - left", "mm - right", "sparse mm - right"),
    _cases("BatchedMatMul", "matmul", "bmm - wrt left", "bmm - wrt right"),
    _cases("Inv", "linalg.inv", "inv", "inv2", "inv batch"),
    _cases("PInv", "linalg.pinv", "pinv", "pinv batch"),
    _row(
        "Cholesky",
        "linalg.cholesky",
        f"{OPS}/test_linalg.py::test_gradients_of_symmetric_matrices_are_right_along_symmetric_directions*",
    ),
    _cases("CholeskySolve", "linalg.cholesky_solve", "cholesky solve, b"),
    _cases("WeightNorm", "linalg.vector_norm multiply", "weight norm - wrt g", "weight norm - wrt v"),
    _cases("MseLoss", "nn.functional.mse_loss", "mse loss"),
    _cases("SmoothL1Loss", "nn.functional.smooth_l1_loss", "l1 loss"),
    _cases(
        "NllLoss",
        "nn.functional.nll_loss",
        "l2 logistic regression loss - nll_loss",
        "l2 logistic regression loss - nll_loss unreduced",
    ),
    _cases(
        "BinaryCrossEntropyWithLogitsLoss",
        "nn.functional.binary_cross_entropy_with_logits",
        "l2 logistic regression loss - bce loss",
        "l2 logistic regression loss - bce loss mean",
    ),
    _cases(
        "Convolution",
        "nn.functional.conv1d nn.functional.conv2d nn.functional.conv3d nn.functional.conv_transpose2d",
        "conv1d - wrt weights",
        "conv2d - wrt weights - groups",
        "conv2d - wrt input",
        "tranposed conv2d - wrt weight",
    ),
    _cases("MaxPool1D", "nn.functional.max_pool1d", "maxpool1d padded", "maxpool1d unpadded", "maxpool1d strided"),
    _cases("MaxPool2D", "nn.functional.max_pool2d", "maxpool2d strided", "maxpool2d strided padded"),
    _cases("AvgPool2D", "nn.functional.avg_pool2d", "avgpool2d strided padded"),
    _cases(
        "BatchNorm",
        "nn.functional.batch_norm",
        "batch norm 1d - wrt to input",
        "batch norm 1d - wrt to weight",
        "batch norm 1d - wrt to bias",
    ),
    _cases(
        "BatchNorm2D",
        "nn.functional.batch_norm",
        "BatchNorm2D - wrt to input",
        "BatchNorm2D - wrt to weights",
        "BatchNorm2D - wrt to bias",
    ),
    _cases(
        "LayerNormOp",
        "nn.functional.layer_norm",
        "layer norm 1d - wrt to input",
        "layer norm 1d - wrt to weight",
        "layer norm 1d - wrt to bias",
    ),
    _cases(
        "ScaledDotProductAttention",
        "nn.functional.scaled_dot_product_attention",
        "scaled dot product attention - by q",
        "scaled dot product attention - by k",
        "scaled dot product attention - by v",
    ),
)

_MODULES = (
    _row(
        "Linear", "nn.Linear", f"{PIECES}::test_linear_contracts_the_last_axis[batch]", note="`numHeads`: not offered"
    ),
    _row(
        "WeightNormLinear",
        "nn.utils.parametrizations.weight_norm nn.utils.weight_norm",
        f"{PIECES}::test_the_columns_of_a_weight_have_a_length_of_their_own",
        f"{CLIENT}/test_parametrizations.py::test_weight_norm_is_pytorchs[Linear-*",
        note="with `dim=1`",
    ),
    _row("SeqLinear", "nn.Linear", f"{PIECES}::test_linear_contracts_the_last_axis[time and batch]"),
    _torch("Conv1D", "Conv1d"),
    _torch("Conv2D", "Conv2d"),
    _torch("Conv2DTransposed", "ConvTranspose2d"),
    _torch("BatchNorm", "BatchNorm1d"),
    _torch("BatchNorm2D", "BatchNorm2d"),
    _row("LayerNorm", "nn.LayerNorm", f"{PIECES}::test_layer_norm_has_mean_0_and_variance_1_before_its_scale"),
    _row("Dropout", "nn.Dropout", f"{PIECES}::test_dropout_is_off_in_evaluation_and_scales_what_it_keeps"),
    _row("Embedding", "nn.Embedding", f"{CLIENT}/test_more_modules_against_torch.py::test_an_embedding_is_pytorchs*"),
    *(
        _row(name, f"nn.{name}", f"{CLIENT}/test_recurrent_against_torch.py::test_a_layer_is_pytorchs[{name}-*")
        for name in ("RNN", "GRU", "LSTM")
    ),
    _row("ResidualModule", "nn.Module", f"{PIECES}::test_a_residual_module_adds_its_input", note=SUBCLASS),
    _row("FreeRunningRNN", "scan", f"{PIECES}::test_a_network_runs_freely_on_what_it_said_before"),
    _row(
        "Seq2Seq", "nn.LSTM", f"{PIECES}::test_the_state_of_an_encoder_feeds_a_decoder", note="the state is an argument"
    ),
    _row(
        "WithInit",
        "nn.GRU",
        f"{PIECES}::test_a_layer_may_begin_with_a_state_of_its_own",
        note="the state is an argument",
    ),
    _row(
        "MultiheadAttention",
        "nn.MultiheadAttention",
        f"{CLIENT}/test_modules_against_torch.py::test_multihead_attention_is_pytorchs*",
        note="`linearized`: not offered",
    ),
    *(
        _row(lamp, f"nn.{ours}", f"{CLIENT}/test_modules_against_torch.py::test_a_transformer_is_pytorchs*")
        for lamp, ours in (
            ("TransformerEncoderBlock", "TransformerEncoderLayer"),
            ("TransformerEncoder", "TransformerEncoder"),
            ("TransformerDecoderBlock", "TransformerDecoderLayer"),
            ("TransformerDecoder", "TransformerDecoder"),
            ("Transformer", "Transformer"),
        )
    ),
    _row(
        "TransformerEmbedding",
        "nn.Embedding models.sinusoidal_positions",
        f"{DOMAINS}::test_an_embedding_knows_its_place*",
        note="added or beside it, in one line",
    ),
    _row(
        "BertEncoder",
        "models.BertModel",
        f"{PUBLISHED}::test_bert_is_bert",
        f"{PUBLISHED}::test_berts_other_heads_are_those_of_bert",
        note="as published: a norm behind the embeddings, places drawn at random; `linearized`: not offered",
    ),
    _row(
        "MaskedLanguageModelModule",
        "models.BertForMaskedLM",
        f"{PUBLISHED}::test_berts_other_heads_are_those_of_bert",
        note="as published: GELU, the embedding's table; all places have scores, and labels of -100 do not count",
    ),
    _row(
        "BertPretrainModule",
        "models.BertForPreTraining",
        f"{PUBLISHED}::test_bert_is_bert",
        note="two scores for the whole text; lamp's one is their difference",
    ),
    _row(
        "BertLoss",
        "models.BertForPreTraining.loss",
        f"{DOMAINS}::test_berts_loss_is_that_of_masked_tokens_and_of_the_whole_text",
        f"{PUBLISHED}::test_bert_is_bert",
    ),
    _row(
        "LanguageModelModule",
        "models.GPT2LMHeadModel",
        f"{PUBLISHED}::test_gpt2_is_gpt2",
        note="all places have scores; `linearized`: not offered",
    ),
    _row(
        "LanguageModelLoss",
        "models.GPT2LMHeadModel.loss",
        f"{DOMAINS}::test_a_language_models_loss_ignores_filling",
        f"{PUBLISHED}::test_gpt2_is_gpt2",
        note="labels are shifted here; -100 in place of the pad token",
    ),
    _row(
        "GCN",
        "nn.GCNConv",
        f"{DOMAINS}::test_a_graph_convolution_over_edges_both_ways_is_lamps",
        f"{DOMAINS}::test_a_graph_convolution_goes_before_any_layers*",
        f"{GRAPHS}::test_a_layers_gradients_are_central_differences[gcn]",
        note="edges listed both ways",
    ),
    _row(
        "GraphAttention",
        "nn.GATConv nn.GATv2Conv nn.TransformerConv nn.functional.scatter_softmax",
        f"{DOMAINS}::test_attention_by_other_scores_is_a_softmax_over_arriving_edges*",
        *(
            f"{GRAPHS}::test_a_layer_is_its_formula_by_node_and_edge[{name}]"
            for name in ("gat mean True", "gat v2", "transformer")
        ),
        note="the layers have the scores of their papers; lamp's own: a subclass of `nn.Module` with `scatter_softmax`",
    ),
    _row(
        "MPNN",
        "nn.MPNN nn.functional.scatter",
        f"{DOMAINS}::test_messages_to_one_end_are_those_of_mpnn*",
        f"{DOMAINS}::test_messages_are_divided_by_degrees_and_joined_at_either_end*",
        f"{GRAPHS}::test_a_layers_gradients_are_central_differences[mpnn]",
        note='`degreeNormalizeJ` alone is `aggr="mean"`; `degreeNormalizeI` and `aggregateJ`: `scatter` in a subclass',
    ),
    *(
        _row(lamp, "nn.Sequential", f"{PIECES}::test_a_sequence_applies_its_modules_in_order")
        for lamp in ("Sequential", "Seq2", "Seq3", "Seq4", "Seq5", "Seq6")
    ),
    *(
        _row(lamp, "nn.Module", f"{PIECES}::test_a_sequence_threads_the_states_of_its_modules", note=SUBCLASS)
        for lamp in ("StatefulSeq2", "StatefulSeq3", "StatefulSeq4", "StatefulSeq5")
    ),
    _row("EitherModule", "nn.Module", f"{PIECES}::test_one_of_two_modules_is_chosen_by_an_if*", note="an `if`"),
    _row("Recursive", "nn.Module", f"{PIECES}::test_a_recursive_module_shares_its_weights", note=SUBCLASS),
    _row("Fun", "nn.Module", f"{PIECES}::test_a_function_is_a_module_in_three_lines", note=SUBCLASS),
    _row("GenericFun", "nn.Module", f"{PIECES}::test_a_function_is_a_module_in_three_lines", note=SUBCLASS),
    _row(
        "WrapFun",
        "nn.Module",
        f"{PIECES}::test_a_module_may_also_return_a_function_of_its_input_and_output",
        note=SUBCLASS,
    ),
    _row("Debug", "grad", *WATCHED, note=WATCH),
    _row("Peek", "Tensor.shape", f"{PIECES}::test_the_shape_is_known_without_running"),
    *(
        _row(
            lamp, "nn.Module", f"{PIECES}::test_a_sequence_threads_the_states_of_its_modules", note="Python needs none"
        )
        for lamp in ("LiftedModule", "UnliftedModule", "MappedState")
    ),
)

_FACTORIES = (
    _row(
        "MLP",
        "models.MLP",
        "tests/models/test_own.py::test_an_mlp_is_torchvisions*",
        f"{PIECES}::test_a_perceptron_with_a_norm_at_its_end_is_two_modules",
        note="torchvision's: the output is the last width, without a norm, and no norm is the default; `numHeads`: not"
        " offered",
    ),
    _row(
        "GCN.gcn",
        "nn.GCNConv nn.BatchNorm1d",
        f"{DOMAINS}::test_a_graph_convolution_goes_before_any_layers*",
        note=SUBCLASS,
    ),
    _row(
        "PositionalEmbedding",
        "models.sinusoidal_positions linalg.svd",
        "tests/models/test_own.py::test_places_are_sines_and_cosines",
        f"{DOMAINS}::test_places_by_their_distances_are_singular_vectors",
        note="`simpleSequence` is three lines of `tg.linalg.svd`, by its documentation: lamp's code takes rows for"
        " columns",
    ),
    _row(
        "VertexPooling",
        "nn.global_add_pool nn.global_mean_pool",
        *(f"{GRAPHS}::test_pools_give_a_row_for_each_graph[global_{name}_pool]" for name in ("add", "mean")),
        note="the number of graphs is given; the mean of no nodes is 0",
    ),
)

TRAJECTORIES = f"{CLIENT}/test_optim_trajectories.py"
AVERAGES = f"{CLIENT}/test_optim_clip_and_average.py"


def _schedule(lamp: str, ours: str) -> Row:
    return _row(lamp, f"optim.lr_scheduler.{ours}", f"{PIECES}::test_the_factors_are_those_of_lamp[{lamp}]")


_OPTIMIZERS = (
    _row("SGDW", "optim.SGDW", f"{TRAJECTORIES}::test_lamps_golden_numbers[SGDW]"),
    _row(
        "AdamW",
        "optim.AdamW",
        f"{TRAJECTORIES}::test_lamps_golden_numbers[AdamW]",
        f"{TRAJECTORIES}::test_lamps_golden_numbers[AdamW-decay]",
        f"{CLIENT}/test_optim_mixed_precision.py::test_lamps_golden_numbers_of_mixed_precision",
    ),
    _row("RAdam", "optim.RAdam", f"{TRAJECTORIES}::test_lamps_golden_numbers[RAdam]"),
    _row("Yogi", "optim.Yogi", f"{TRAJECTORIES}::test_lamps_golden_numbers_of_yogi"),
    _row(
        "Shampoo",
        "optim.Shampoo",
        f"{TRAJECTORIES}::test_the_trajectory_is_that_of_the_paper[Shampoo]",
        note="lamp scales the wrong side of the eigenvectors and ignores the schedule; proof is the paper's algorithm",
    ),
)

_SCHEDULES = (
    _schedule("noop", "ConstantLR"),
    _schedule("fromEpochCount", "LambdaLR"),
    _schedule("decrement", "StepLR"),
    _schedule("linear", "LinearLR"),
    _schedule("stepAfter", "MultiStepLR"),
    _schedule("cyclicSchedule", "CyclicLR"),
    _row(
        "reduceLROnPlateau",
        "optim.lr_scheduler.ReduceLROnPlateau",
        f"{CLIENT}/test_optim_schedules.py::test_a_plateau_lowers_the_rate_as_in_pytorch*",
    ),
    _row("SWA constant", "optim.swa_utils.AveragedModel", f"{AVERAGES}::test_an_averaged_model_is_pytorchs*"),
    _row(
        "SWA cyclic",
        "optim.swa_utils.AveragedModel optim.lr_scheduler.LambdaLR",
        f"{PIECES}::test_the_factors_are_those_of_lamp[SWA cyclic]",
        f"{AVERAGES}::test_an_averaged_model_is_pytorchs*",
        note="`update_parameters` is called where lamp's schedule says to average",
    ),
)

LOSS = f"{CLIENT}/test_modules_against_torch.py::test_a_loss_is_pytorchs"

_LOSSES = (
    _row("Identity", "Tensor.backward", f"{PIECES}::test_a_loss_that_the_module_returns_is_minimised_as_it_is"),
    _row("MSE", "nn.MSELoss", f"{LOSS}[MSELoss-*"),
    _row("SmoothL1Loss", "nn.SmoothL1Loss", f"{LOSS}[SmoothL1Loss-*"),
    _row("NLL", "nn.NLLLoss", f"{LOSS}[NLLLoss-*"),
    _row("BCEWithLogits", "nn.BCEWithLogitsLoss", f"{LOSS}[BCEWithLogitsLoss-*"),
    _row("SequenceNLL", "nn.NLLLoss", f"{PIECES}::test_the_loss_of_a_sequence_is_averaged_over_what_is_not_ignored"),
    _row(
        "SimpleLossCalculation", "Tensor.backward", f"{CLIENT}/test_tensor.py::test_backward_gives_gradients_to_leaves*"
    ),
    _row(
        "PerturbedLossCalculation",
        "grad",
        f"{PIECES}::test_the_gradient_at_perturbed_weights_is_a_gradient_at_other_weights",
    ),
    _row("AdversarialTraining", "grad", f"{PIECES}::test_adversarial_training_is_one_gradient_of_two_losses"),
)

SECTIONS = (
    Section("Ops", 83, _OPS),
    Section("Modules", 54, _MODULES),
    Section("Factories of modules", 4, _FACTORIES),
    Section("Optimizers", 5, _OPTIMIZERS),
    Section("Schedules", 9, _SCHEDULES),
    Section("Losses and how they are used", 9, _LOSSES),
)

NOT_YET: dict[str, set[str]] = {}
"""What is missing, said twice so that a row is filled deliberately."""


def page() -> str:
    """The page of the docs."""
    lines = [
        "# lamp and telegrad",
        "",
        "Written by `scripts/docs` from `tests/lamp_parity.py`. [lamp](https://github.com/pityka/lamp) is the Scala",
        "library that telegrad descends from (see [the op contract](op-contract.md)). Here is every op, module,",
        "optimizer, schedule and loss of it, what it is here, and the test that proves it: for ops the gradient for",
        "random cotangents, which lamp's own tests never took. A `*` stands for all tests that begin so.",
        "",
        "| | of lamp | here | not yet |",
        "|---|---|---|---|",
    ]
    for section in SECTIONS:
        missing = sum(is_missing(row) for row in section.rows)
        lines.append(f"| {section.title} | {section.count} | {section.count - missing} | {missing} |")
    for section in SECTIONS:
        lines += ["", f"## {section.title}", "", "| lamp | telegrad | proof |", "|---|---|---|"]
        lines += [f"| `{row.lamp}` | {_here(row)} | {_proof(row)} |" for row in section.rows]
    return "\n".join([*lines, ""])


def is_missing(row: Row) -> bool:
    """Whether there is nothing here yet."""
    return not row.proof


def _here(row: Row) -> str:
    if is_missing(row):
        return f"**not yet**: {row.note}"
    names = ", ".join(f"`{_short(name)}`" for name in row.ours)
    return "; ".join(part for part in (names, row.note) if part)


def _short(name: str) -> str:
    """The name as users write it."""
    found = name.removeprefix("telegrad.")
    return found if found.startswith(("nn.", "optim.")) else f"tg.{found}"


def _proof(row: Row) -> str:
    found: list[str] = []
    for test in row.proof:
        file, function = test.removeprefix("tests/").split("::")
        case = function[function.index("[") :] if "[" in function else ""
        if found and found[-1].startswith(f"`{file}::{function.removesuffix(case)}[") and case:
            found[-1] = f"{found[-1][:-1]}, {case}`"  # the same test on another case
        else:
            found.append(f"`{file}::{function}`")
    return ", ".join(found)
