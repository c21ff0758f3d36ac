#!/usr/bin/env python3
"""The official `openai` package against the server. Usage: check_openai.py PROGRAM"""
import base64
import io
import sys

import openai

from serving import ROOT, Server, png_pixels


def main():
    server = Server(sys.argv[1], demo=True)
    try:
        server.await_ready(300)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none",
                               max_retries=0)
        names = [model.id for model in client.models.list()]
        assert "edge_to_image" in names, names
        assert client.models.retrieve("edge_to_image").owned_by == "onestep"
        with open(f"{ROOT}/models/demo/inputs/edge_to_image_bird.png", "rb") as file:
            picture = file.read()
        answer = client.images.edit(model="edge_to_image", image=io.BytesIO(picture), n=2,
                                    prompt="a blue bird on a yellow ground", size="256x256",
                                    response_format="b64_json",
                                    extra_body={"seed": "7", "low-threshold": "50"})
        pictures = [png_pixels(base64.b64decode(one.b64_json)) for one in answer.data]
        assert len(pictures) == 2 and pictures[0][:2] == (128, 128), [p[:2] for p in pictures]
        assert pictures[0][2] != pictures[1][2]
        for mistake, kind in ((dict(model="dall-e-2"), openai.NotFoundError),
                              (dict(model="edge_to_image", n=99), openai.UnprocessableEntityError)):
            try:
                client.images.edit(image=io.BytesIO(picture), prompt="x", **mistake)
            except kind as error:
                assert error.body["message"], error
            else:
                raise AssertionError(f"{mistake} was taken")
        print(f"openai {openai.__version__}: models, images.edit and errors work")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
