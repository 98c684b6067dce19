"""The recipes by which Scaled-YOLOv4 networks were trained and evaluated; figures of two of them are never mixed."""

from __future__ import annotations

__all__ = ["RECIPES"]

RECIPES = {
    "paper": "arXiv v2: 300 epochs for CSP, 300 and 150 of fine-tuning for P5 to P7, 600 for tiny",
    "paper-300": "arXiv v2, Table 10: P5 to P7 without the fine-tuning",
    "large-weights": "released weights of the yolov4-large branch, arXiv v1",
    "large-bof-star": "yolov4-large README, P6 with +BoF*, weights not released",
    "large-darknet": "P5 and P6 as evaluated in Darknet",
    "csp-2021-05": "weights of May and June 2021 of the yolov4-csp branch and of Darknet",
    "x-2020-12": "Darknet's YOLOv4x-mish of December 2020",
    "swish-2021": "Darknet README: CSP-swish and CSP-X-swish, evaluated in PyTorch",
    "tiny-2020-06": "the first weights of YOLOv4-tiny, June 2020",
    "pytorch-2021-10": "PyTorch_YOLOv4 master, weights of October 2021",
    "pytorch-archive-1": "PyTorch_YOLOv4 master, archived table 1, 640 px",
    "pytorch-archive-2": "PyTorch_YOLOv4 master, archived table 2, 672 px",
    "pytorch-archive-2-bof": "the same with its bag of freebies, 640 px",
    "teacher": "PyTorch_YOLOv4 history: the small network taught by a large one, 672 px",
    "u3-preview": "PyTorch_YOLOv4 u3_preview, 736 px, and YOLOv4-tiny trained in PyTorch",
    "u5": "PyTorch_YOLOv4 u5, 672 px",
    "u5-bof": "the same with its bag of freebies, 640 px",
    "u5-mish-preview": "PyTorch_YOLOv4 u5_mish_preview, 672 px",
    "u5-preview": "PyTorch_YOLOv4 u5_preview, 736 px",
    "yolor": "YOLOR's SiLU networks",
    "yolor-baseline": "YOLOR's baseline of YOLOv4-CSP",
    "yolov7": "retrained with YOLOv7's settings",
    "yolo-ret": "YOLOv4-tiny in the YOLO-ReT paper, Table 7",
    "tensorrt-demos": "released weights as FP16 engines, square pictures, evaluated by a third party",
}
"""Descriptions; the first is the default."""
