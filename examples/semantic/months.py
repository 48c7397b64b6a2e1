"""Train an autoencoder on sea-surface fields with missing cells, get its encoder out, and see which months are alike.

Runs in about half a minute on a laptop: `python months.py`. The model is small and trained briefly; raise
`train.steps` for one that is of use.
"""

import torch

import gridloom


def main() -> None:
    # Seven variables, 12 months, 90 x 180 cells, nearly half of them missing.
    config = gridloom.configure("semantic", preset="coads", settings={"train.steps": 60, "train.batch_size": 32})
    run = gridloom.train_system("semantic", config, output="runs/coads")

    # The encoder alone, in a folder that carries statistics, input specification and card.
    extraction = gridloom.extract_encoder(run.folder, "encoder", verify=True)
    encoder = gridloom.SemanticEncoder.from_pretrained(extraction.output)
    print(encoder)

    # Every window of every month: dimensions month, lat, lon, feature.
    embeddings = encoder.encode_dataset("coads")
    print(embeddings.sizes)

    # How alike are the months? Cosine similarity of the mean embedding of all windows that have data.
    months = embeddings.mean(["lat", "lon"])
    vectors = torch.from_numpy(months.values)
    similarity = encoder.similarity(vectors, vectors)
    nearest = similarity.fill_diagonal_(-1).argmax(1) + 1
    for month, other in zip(months.month.values, nearest.tolist(), strict=True):
        print(f"month {int(month):2d} is most like month {other:2d}")

    gridloom.save_grid(embeddings.to_dataset(name="embedding"), "embeddings.zarr")


if __name__ == "__main__":
    main()
