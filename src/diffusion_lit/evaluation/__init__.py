from diffusion_lit.evaluation.loss_by_time import LossByTime

__all__ = ["LossByTime"]
