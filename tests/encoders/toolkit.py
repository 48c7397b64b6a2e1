"""The Python of the toolkit's own documentation, block by block, as it is written there.

Its import line names the package instead of a script. Names that it leaves to the reader are in `GIVEN`.
"""

import torch

LAYOUT = """
{
    'encoder_state_dict': dict,  # Encoder权重
    'model_config': {
        'input_channels': int,
        'latent_dim': int,
        'model_type': str
    },
    'extracted_from': str,  # 原始文件路径
    'extraction_info': {
        'total_params': int,
        'trainable_params': int,
        'num_weights': int
    }
}
"""
"""输出格式: what is in a file of weights."""

BLOCKS = {
    "使用语义编码器": """
from gridloom import SemanticEncoder, create_semantic_encoder

# 方法1: 直接创建
encoder = SemanticEncoder(
    input_channels=1,
    latent_dim=768,
    pretrained_path="encoder_weights.pth",
    freeze_weights=False
)

# 方法2: 使用便捷函数
encoder = create_semantic_encoder(
    pretrained_path="encoder_weights.pth",
    freeze_weights=True  # 用于特征提取
)

# 推理
import torch
x = torch.randn(4, 1, 128, 128)  # [B, C, H, W]
embeddings = encoder.encode(x)   # [B, 768]
""",
    "权重管理": """
# 加载预训练权重
encoder.load_pretrained_weights("path/to/weights.pth")

# 冻结/解冻所有参数
encoder.freeze_parameters(True)  # 冻结
encoder.freeze_parameters(False) # 解冻

# 冻结特定层
encoder.freeze_layers(['stem', 'layer1', 'layer2'])

# 保存权重
encoder.save_encoder_weights("output_weights.pth")
""",
    "推理方法": """
# PyTorch Tensor推理
embeddings = encoder.encode(tensor_input)

# NumPy数组推理（自动处理维度和归一化）
embeddings = encoder.encode_numpy(numpy_input, normalize=True)

# 大批量推理（自动分批）
embeddings = encoder.encode_batch(large_tensor, batch_size=16)
""",
    "信息查询": """
# 参数数量
total_params = encoder.count_parameters()
trainable_params = encoder.count_parameters(only_trainable=True)

# 模型信息
info = encoder.get_model_info()
print(encoder)  # 详细信息
""",
    "1. 特征提取器": """
# 冻结权重，用作特征提取器
feature_extractor = SemanticEncoder(
    pretrained_path="encoder_weights.pth",
    freeze_weights=True
)

# 批量提取特征
images = torch.randn(100, 1, 128, 128)
features = feature_extractor.encode_batch(images, batch_size=16)
""",
    "2. 下游任务的Backbone": """
class MyModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        # 加载预训练encoder
        self.backbone = SemanticEncoder(
            pretrained_path="encoder_weights.pth",
            freeze_weights=False
        )
        # 冻结早期层
        self.backbone.freeze_layers(['stem', 'layer1'])

        # 任务特定的头部
        self.classifier = torch.nn.Linear(768, num_classes)

    def forward(self, x):
        features = self.backbone.encode(x)
        return self.classifier(features)
""",
    "3. 相似度计算": """
encoder = SemanticEncoder(pretrained_path="encoder_weights.pth")

# 计算两个图像的相似度
with torch.no_grad():
    feat1 = encoder.encode(img1)
    feat2 = encoder.encode(img2)
    similarity = torch.nn.functional.cosine_similarity(feat1, feat2)
""",
    "4. 数据处理流水线": '''
import numpy as np

# 处理NumPy格式的数据
def process_depth_maps(depth_maps: np.ndarray) -> np.ndarray:
    """
    处理深度图数组
    Args:
        depth_maps: [N, H, W] 或 [N, C, H, W]
    Returns:
        embeddings: [N, 768]
    """
    encoder = SemanticEncoder(
        pretrained_path="encoder_weights.pth",
        freeze_weights=True
    )

    return encoder.encode_numpy(
        depth_maps,
        batch_size=32,
        normalize=True
    )
''',
    "权重验证": """
# 检查权重加载是否成功
encoder = SemanticEncoder(pretrained_path="weights.pth")
test_input = torch.randn(1, 1, 128, 128)
output = encoder.encode(test_input)
print(f"输出形状: {output.shape}")  # 应该是 [1, 768]
""",
    "参数检查": """
# 查看参数状态
info = encoder.get_model_info()
print(f"总参数: {info['total_parameters']:,}")
print(f"可训练参数: {info['trainable_parameters']:,}")

# 检查梯度状态
for name, param in encoder.named_parameters():
    print(f"{name}: requires_grad={param.requires_grad}")
""",
    "性能测试": """
import time

# 测试推理速度
encoder.eval()
test_batch = torch.randn(32, 1, 128, 128)

with torch.no_grad():
    start_time = time.time()
    output = encoder.encode(test_batch)
    end_time = time.time()

print(f"批量推理时间: {(end_time - start_time)*1000:.2f} ms")
print(f"单张图像推理时间: {(end_time - start_time)*1000/32:.2f} ms")
""",
    "Q2: 输入维度不匹配": """
# 确保输入是4D张量 [B, C, H, W]
if input_tensor.ndim == 3:
    input_tensor = input_tensor.unsqueeze(1)  # 添加通道维度
""",
    "Q3: 内存不足": """
# 使用批量推理
embeddings = encoder.encode_batch(large_input, batch_size=16)

# 或者使用CPU
encoder = SemanticEncoder(device='cpu')
""",
    "Q4: 参数冻结不生效": """
# 检查参数状态
for name, param in encoder.named_parameters():
    if param.requires_grad:
        print(f"未冻结的参数: {name}")

# 强制冻结
encoder.freeze_parameters(True)
""",
}


def given() -> dict[str, object]:
    """What the blocks leave to the reader."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 1, 128, 128, generator=generator)
    return {
        "tensor_input": images[:2],
        "numpy_input": images[:3, 0].double().numpy(),
        "large_tensor": images,
        "large_input": images,
        "num_classes": 5,
        "img1": images[:1],
        "img2": images[:1] + 0.01,
        "input_tensor": images[:4, 0],
    }
