"""bench/peers sorts every engine's layers into the right groups, and draws them. Names as the engines really give them."""

import os
import sys
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "peers"))

import layers
import report
import roofline


def layer(name, operator, part="denoiser", **more):
    return {"part": part, "name": name, "path": layers.module_path(name), "operator": operator, "seconds": 0.001, **more}


def own_step(weight, algorithm, output, stage="unet", **more):
    return {"stage": stage, "algorithm": algorithm, "output": output, "gflop": 1.0, "bytes": 10 ** 7, "predicted_s": 0.0,
            "took_s": 0.004, "weight": weight, **more}


BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"


class Paths(unittest.TestCase):
    def test_one_module_has_one_path_in_every_engine(self):
        for name in ("__module.unet.down_blocks.0.resnets.0.conv1/aten::_convolution/Convolution",
                     "/unet/down_blocks.0/resnets.0/conv1/Conv_output_0_nchwc", "unet.down_blocks.0.resnets.0.conv1",
                     "unet.down_blocks.0.resnets.0.conv1.base_layer", "unet.down_blocks.0.resnets.0.conv1.lora_A.default"):
            self.assertEqual(layers.module_path(name), "down_blocks.0.resnets.0.conv1")
        self.assertEqual(layers.module_path("/unet/" + BLOCK.replace(".attentions", "/attentions").replace(".trans", "/trans") +
                                            "/attn1/to_out.0/MatMul/MatMulAddFusion"), BLOCK + ".attn1.to_out.0")

    def test_names_without_a_module(self):
        self.assertEqual(layers.module_kernel(layers.module_path("MVN_4494")), None)
        self.assertEqual(layers.module_kernel(""), None)


class Kinds(unittest.TestCase):
    def check(self, expected, found):
        self.assertEqual(layers.kind(found), expected)

    def test_convolutions(self):
        shape = [1, 32, 64, 48]
        expected = layers.CONVOLUTION + " at 64x48"
        self.check(expected, layer("__module.unet.conv_in/aten::_convolution/Convolution", "Convolution", output=shape, kernel=3))
        # An ONNX convolution may carry the name of the sum that was put into it, or of an output.
        self.check(expected, layer("/unet/down_blocks.1/resnets.0/Add_output_0_nchwc", "Conv", output=shape, kernel=3))
        self.check(expected, layer("skip1_nchwc", "Conv", output=shape, kernel=3))
        self.check(expected, layer("unet.conv_in", "aten.convolution", output=shape, kernel=3))
        # Both halves of LoRA belong to their layer, also the one of kernel 1.
        self.check(expected, layer("unet.conv_in.lora_B.default", "aten.convolution", output=shape, kernel=1))
        self.check(expected, layers.own_layers([own_step("conv_in.weight", "winograd 4x4 int16", [1, 64, 48, 32])])[0])

    def test_linear(self):
        self.check(layers.LINEAR, layer(f"__module.unet.{BLOCK}.attn1.to_q/aten::linear/MatMul", "FullyConnected", kernel=1))
        self.check(layers.LINEAR, layer("gemm_7", "Gemm", kernel=1, weighted=True))
        self.check(layers.LINEAR, layer("unet.time_embedding.linear_1", "aten.addmm", kernel=1))
        self.check(layers.LINEAR, layer("/unet/x/conv_shortcut/Conv_output_0_nchwc", "Conv", output=[1, 8, 4, 4], kernel=1))
        for weight in ("down_blocks.0.resnets.0.conv_shortcut.weight", f"{BLOCK}.ff.net.0.proj.weight", f"{BLOCK}.ff.net.2.weight",
                       f"{BLOCK}.attn1.to_out.0.weight", "decoder.skip_conv_2.weight", "quant_conv.weight"):
            self.check(layers.LINEAR, layers.own_layers([own_step(weight, "direct f32", [1, 8, 8, 32])])[0])

    def test_attention(self):
        self.check(layers.ATTENTION, layers.own_layers([own_step("", "attention int16", [1, 64, 64, 320])])[0])
        self.check(layers.ATTENTION, layer(f"__module.unet.{BLOCK}.attn1/aten::transpose/Transpose_3", "Subgraph", fused=[
            "Multiply_13249", "Softmax_13251"]))
        name = f"__module.unet.{BLOCK}.attn1/aten::scaled_dot_product_attention/ScaledDotProductAttention"
        self.check(layers.ATTENTION, layer(name, "Subgraph", fused=[name]))
        self.check(layers.ATTENTION, layer("MatMul_13250", "MatMul", weighted=False))
        self.check(layers.ATTENTION, layer("MatMulScaleFusion_token_3", "FusedMatMul", weighted=False))
        self.check(layers.ATTENTION, layer("/unet/x/attn1/Softmax", "Softmax"))
        self.check(layers.ATTENTION, layer(f"unet.{BLOCK}.attn1", "aten._scaled_dot_product_flash_attention_for_cpu"))

    def test_the_rest(self):
        for name, operator in (("MVN_4494", "MVN"), ("Gelu", "Gelu"), ("ReorderInput_token_24", "ReorderInput"),
                               ("__module.unet.conv_in/aten::_convolution/Convolution_acdb_abcd_Result", "Reorder"),
                               ("unet.conv_in", "aten.add"), ("/unet/x/attn1/Transpose_1", "Transpose")):
            self.check(layers.OTHER, layer(name, operator))
        self.check(layers.OTHER, layers.own_layers([own_step("conv_norm_out.weight", "group_norm statistics", [1, 64, 64, 32])])[0])

    def test_what_nothing_is_known_of_is_not_guessed(self):
        self.check(layers.UNKNOWN, layer("Convolution_17", "Convolution", output=[1, 8, 4, 4]))
        self.check(layers.UNKNOWN, layer("unet.conv_in", "aten.convolution", kernel=3))  # of unknown size
        self.check(layers.UNKNOWN, layer("MatMul_5", "MatMul"))


def results():
    own = layers.own_layers([
        own_step("encoder.conv_in.weight", "winograd 6x6 f32", [1, 128, 128, 16], stage="encode"),
        own_step("down_blocks.0.resnets.0.conv1.weight", "winograd 4x4 f32", [1, 8, 8, 32]),
        own_step("conv_in.weight", "winograd 4x4 f32", [1, 16, 16, 32]),
        own_step("", "attention f32", [1, 16, 16, 32]), own_step(f"{BLOCK}.attn1.to_q.weight", "direct f32", [1, 16, 16, 32]),
        own_step("norm.weight", "layer_norm", [1, 16, 16, 32]),
        own_step("short.weight", "layer_norm", [1, 16, 16, 32], took_s=1e-6)])
    peer = [layer("skip0_nchwc", "Conv", "encoder", output=[1, 16, 128, 128], kernel=3),
            layer("/unet/conv_in/Conv_output_0_nchwc", "Conv", output=[1, 32, 16, 16], kernel=3), layer("Gelu", "Gelu")]
    told = {"onestep-f32": {"ran_in": "f32", "total_s": 0.03, "peak_gflops": 230, "layers": own, "groups": layers.groups(own)},
            "onnxruntime-f32": {"ran_in": "f32", "total_s": 0.004, "layers": peer, "groups": layers.groups(peer)},
            "openvino-f32": {"error": "ended with 1"}}
    return {"settings": {"cpu": "a CPU", "cpu_flags": ["avx2", "avx512_vnni"], "threads": 2}, "memory_bandwidth": 36e9,
            "layers": {"128": told}}


class Output(unittest.TestCase):
    def test_groups_are_sums_in_order(self):
        found = layers.groups(results()["layers"]["128"]["onestep-f32"]["layers"])
        self.assertEqual([(group["stage"], group["kind"]) for group in found], [
            ("encode", layers.CONVOLUTION + " at 128x128"), ("UNet", layers.CONVOLUTION + " at 16x16"),
            ("UNet", layers.CONVOLUTION + " at 8x8"), ("UNet", layers.LINEAR), ("UNet", layers.ATTENTION),
            ("UNet", layers.OTHER)])
        self.assertAlmostEqual(sum(group["seconds"] for group in found), 0.024001)
        self.assertAlmostEqual(sum(group["gflop"] for group in found), 7)

    def test_table(self):
        text = report.layer_tables(results())
        self.assertIn("| UNet | 3x3 convolutions at 16x16 | 1 | 4.00 (250) | 1.00 (1000) |\n", text)
        self.assertIn("| UNet | 3x3 convolutions at 8x8 | 1 | 4.00 (250) |  |\n", text)
        self.assertIn("| UNet | everything else |  | 4.00 | 1.00 |\n", text)
        self.assertIn("| | sum of layers | 5 | 24 | 3 |\n", text)
        self.assertIn("- OpenVINO, f32: ended with 1.", text)

    def test_roofline(self):
        svg = xml.etree.ElementTree.fromstring(roofline.chart(results()))
        titles = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")]
        self.assertEqual(len(titles), 6)
        self.assertIn("denoiser conv_in: 250 GFLOP/s, 16.7% of the time", titles)
        texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("memory, by copying: 36 GB/s", texts)
        self.assertIn("f32 peak, measured: 230 GFLOP/s", texts)
        self.assertNotIn("int16", " ".join(texts))  # no engine that ran in it


if __name__ == "__main__":
    unittest.main()
