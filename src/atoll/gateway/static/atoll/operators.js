// Operators that a graph may use: arithmetic on tensors of known shapes, as src/atoll/graph/check.py allows them.
//
// Each line: the operator, how many inputs and outputs it has, its attributes with the field of an AttributeProto that
// holds them (f, i, s, t, floats, ints); a line that starts with + goes on with those. @19 or @20: only from that opset
// on.

const TABLE = `
  Abs 1-1 1-1
  Add 2-2 1-1
  And 2-2 1-1
  ArgMax 1-1 1-1 axis:i keepdims:i select_last_index:i
  ArgMin 1-1 1-1 axis:i keepdims:i select_last_index:i
  AveragePool 1-1 1-1 auto_pad:s ceil_mode:i count_include_pad:i
    + dilations:ints@19 kernel_shape:ints pads:ints strides:ints
  BitwiseAnd 2-2 1-1
  BitwiseXor 2-2 1-1
  Cast 1-1 1-1 saturate:i@19 to:i
  Ceil 1-1 1-1
  Clip 1-3 1-1
  Concat 1-1024 1-1 axis:i
  Constant 0-0 1-1 value:t value_float:f value_floats:floats value_int:i value_ints:ints value_string:s
  ConstantOfShape 1-1 1-1 value:t
  Conv 2-3 1-1 auto_pad:s dilations:ints group:i kernel_shape:ints pads:ints strides:ints
  ConvTranspose 2-3 1-1 auto_pad:s dilations:ints group:i kernel_shape:ints
    + output_padding:ints output_shape:ints pads:ints strides:ints
  Cos 1-1 1-1
  CumSum 2-2 1-1 exclusive:i reverse:i
  Div 2-2 1-1
  Elu 1-1 1-1 alpha:f
  Equal 2-2 1-1
  Erf 1-1 1-1
  Exp 1-1 1-1
  Expand 2-2 1-1
  Flatten 1-1 1-1 axis:i
  Floor 1-1 1-1
  Gather 2-2 1-1 axis:i
  GatherElements 2-2 1-1 axis:i
  Gelu@20 1-1 1-1 approximate:s
  Gemm 2-3 1-1 alpha:f beta:f transA:i transB:i
  GlobalAveragePool 1-1 1-1
  Greater 2-2 1-1
  GreaterOrEqual 2-2 1-1
  HardSigmoid 1-1 1-1 alpha:f beta:f
  HardSwish 1-1 1-1
  Identity 1-1 1-1
  LayerNormalization 2-3 1-3 axis:i epsilon:f stash_type:i
  LeakyRelu 1-1 1-1 alpha:f
  Less 2-2 1-1
  LessOrEqual 2-2 1-1
  Log 1-1 1-1
  LogSoftmax 1-1 1-1 axis:i
  MatMul 2-2 1-1
  Max 1-1024 1-1
  MaxPool 1-1 1-2 auto_pad:s ceil_mode:i dilations:ints kernel_shape:ints pads:ints storage_order:i strides:ints
  Min 1-1024 1-1
  Mod 2-2 1-1 fmod:i
  Mul 2-2 1-1
  Neg 1-1 1-1
  Not 1-1 1-1
  Or 2-2 1-1
  Pad 2-4 1-1 mode:s
  Pow 2-2 1-1
  Reciprocal 1-1 1-1
  ReduceL2 1-2 1-1 keepdims:i noop_with_empty_axes:i
  ReduceMax 1-2 1-1 keepdims:i noop_with_empty_axes:i
  ReduceMean 1-2 1-1 keepdims:i noop_with_empty_axes:i
  ReduceMin 1-2 1-1 keepdims:i noop_with_empty_axes:i
  ReduceSum 1-2 1-1 keepdims:i noop_with_empty_axes:i
  ReduceSumSquare 1-2 1-1 keepdims:i noop_with_empty_axes:i
  Relu 1-1 1-1
  Reshape 2-2 1-1 allowzero:i
  Round 1-1 1-1
  ScatterElements 3-3 1-1 axis:i reduction:s
  ScatterND 3-3 1-1 reduction:s
  Shape 1-1 1-1 end:i start:i
  Sigmoid 1-1 1-1
  Sign 1-1 1-1
  Sin 1-1 1-1
  Slice 3-5 1-1
  Softmax 1-1 1-1 axis:i
  Softplus 1-1 1-1
  Split 1-2 1-1024 axis:i num_outputs:i
  Sqrt 1-1 1-1
  Squeeze 1-2 1-1
  Sub 2-2 1-1
  Tanh 1-1 1-1
  Tile 2-2 1-1
  Transpose 1-1 1-1 perm:ints
  Trilu 1-2 1-1 upper:i
  Unsqueeze 2-2 1-1
  Where 3-3 1-1
  Xor 2-2 1-1
`;

const range = (text) => text.split("-").map(Number);
const dated = (text) => {
  const [name, since = "18"] = text.split("@");
  return [name, Number(since)];
};

/**
 * By name: the first opset, least and most inputs and outputs, and attributes as Map(name -> {field, since}).
 * @type {Map<string, {since: number, inputs: number[], outputs: number[], attributes: Map<string, any>}>}
 */
export const OPERATORS = new Map(
  TABLE.trim().replace(/\n +\+/g, "").split("\n").map((line) => {
    const [op, inputs, outputs, ...rest] = line.trim().split(" ");
    const [name, since] = dated(op);
    const attributes = rest.map((text) => {
      const [typed, first] = dated(text);
      const [attribute, field] = typed.split(":");
      return [attribute, { field, since: first }];
    });
    return [name, { since, inputs: range(inputs), outputs: range(outputs), attributes: new Map(attributes) }];
  }),
);
